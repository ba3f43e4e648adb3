"""Asking the store: what comes back is each secret's own, or nothing at all."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import StoreUnavailableError, StoreUntrustedError
from scanner.model import Lookup, Secret, Validity
from scanner.patterns.generate import generate
from scanner.prove import prove
from scanner.stores.memory import MemoryTokenStore

RNG = random.Random(5)
SECRETS = [generate("npm-access-token", RNG) for _ in range(6)]
KNOWING = [Validity.ACTIVE, Validity.REVOKED, Validity.EXPIRED, Validity.OWNER_DISABLED]


class Saying:
    """A store that answers each secret by a function."""

    name = "saying"
    abilities = MemoryTokenStore().abilities

    def __init__(self, says: Callable[[Secret], Lookup]) -> None:
        self.says = says
        self.batches: list[list[Secret]] = []

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        self.batches.append(list(secrets))
        return [self.says(secret) for secret in secrets]

    def revoke(self, token_id: str, incident_id: str, *, secret: Secret | None = None) -> bool:
        raise AssertionError((token_id, incident_id))


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(
    st.lists(st.sampled_from(range(6)), min_size=1, max_size=9), st.sets(st.sampled_from(range(6)))
)
def test_the_control_changes_no_answer(asked: list[int], issued: set[int]) -> None:
    store = MemoryTokenStore()
    ids = {number: store.issue(SECRETS[number]) for number in issued}
    answers = prove(store, [SECRETS[number] for number in asked])
    assert [answer.token and answer.token.token_id for answer in answers] == [
        ids.get(number) for number in asked
    ]
    assert [answer.validity for answer in answers] == [
        Validity.ACTIVE if number in issued else Validity.NEVER_ISSUED for number in asked
    ]


def test_one_round_trip_holds_all_and_the_control() -> None:
    store = Saying(lambda _: Lookup(Validity.NEVER_ISSUED))
    prove(store, SECRETS)
    (batch,) = store.batches
    (control,) = set(batch) - set(SECRETS)
    assert len(batch) == len(SECRETS) + 1
    assert control.reveal().isalnum()


@pytest.mark.parametrize("validity", KNOWING)
def test_a_store_that_knows_the_control_is_not_believed(validity: Validity) -> None:
    with pytest.raises(StoreUntrustedError, match="knows a token that was never issued"):
        prove(Saying(lambda _: Lookup(validity)), SECRETS)


@pytest.mark.parametrize("validity", Validity)
def test_what_a_store_says_of_the_control_is_all_that_counts(validity: Validity) -> None:
    store = Saying(lambda secret: Lookup(validity if secret in SECRETS else Validity.NEVER_ISSUED))
    if validity in KNOWING:  # there is nobody to tell, and nothing to revoke
        with pytest.raises(StoreUntrustedError, match="but not which"):
            prove(store, SECRETS)
    else:
        assert prove(store, SECRETS) == [Lookup(validity)] * 6


@pytest.mark.parametrize("of_which", ["all", "the control"])
def test_a_store_that_cannot_answer_for_its_control_has_not_answered(of_which: str) -> None:
    def says(secret: Secret) -> Lookup:
        silent = of_which == "all" or secret not in SECRETS
        return Lookup(Validity.STORE_UNAVAILABLE if silent else Validity.NEVER_ISSUED)

    with pytest.raises(StoreUnavailableError, match="did not answer for its control") as caught:
        prove(Saying(says), SECRETS)
    assert caught.value.retry


def test_one_token_that_a_store_cannot_answer_for_leaves_the_others_their_answers() -> None:
    def says(secret: Secret) -> Lookup:
        silent = secret == SECRETS[3]
        return Lookup(Validity.STORE_UNAVAILABLE if silent else Validity.NEVER_ISSUED)

    answers = [lookup.validity for lookup in prove(Saying(says), SECRETS)]
    assert answers.pop(3) is Validity.STORE_UNAVAILABLE  # never taken for unknown
    assert answers == [Validity.NEVER_ISSUED] * 5


@pytest.mark.parametrize("wrong", [-1, 1])
def test_another_number_of_answers_is_not_believed(wrong: int) -> None:
    class Miscounting(Saying):
        def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
            return [Lookup(Validity.NEVER_ISSUED)] * (len(secrets) + wrong)

    with pytest.raises(StoreUntrustedError, match="another number"):
        prove(Miscounting(lambda _: Lookup(Validity.NEVER_ISSUED)), SECRETS)


def test_nothing_to_ask_asks_nothing() -> None:
    store = Saying(lambda _: Lookup(Validity.ACTIVE))
    assert prove(store, []) == []
    assert store.batches == []


def test_errors_tell_no_token() -> None:
    for validity in (Validity.ACTIVE, Validity.STORE_UNAVAILABLE):
        with pytest.raises((StoreUntrustedError, StoreUnavailableError)) as caught:
            prove(Saying(lambda _, said=validity: Lookup(said)), SECRETS)
        said = str(caught.value)
        assert not any(secret.reveal().decode() in said for secret in SECRETS)
