"""Asking a store with a control token among the secrets, on every store there is (threat 12)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest

from scanner.errors import StoreUnavailableError, StoreUntrustedError
from scanner.model import Lookup, Secret, Validity
from scanner.ports import TokenStore
from scanner.prove import prove
from scanner.stores.memory import MemoryTokenStore

NewSecret = Callable[[], Secret]


class Between:
    """Stands before a store: keeps what was asked, and may change what is answered."""

    def __init__(
        self,
        store: TokenStore,
        change: Callable[[Sequence[Lookup]], Sequence[Lookup]] = lambda answers: answers,
    ) -> None:
        self.name = store.name
        self.abilities = store.abilities
        self.asked: list[Sequence[Secret]] = []
        self._store = store
        self._change = change

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        self.asked.append(secrets)
        return self._change(self._store.find(secrets))

    def revoke(self, token_id: str, incident_id: str, *, secret: Secret | None = None) -> bool:
        return self._store.revoke(token_id, incident_id, secret=secret)


def test_the_answers_are_the_stores_own(bench, new_secret: NewSecret) -> None:
    active, revoked, unknown = (new_secret() for _ in range(3))
    bench.issue(active)
    bench.revoke_by_hand(bench.issue(revoked))
    asked = [unknown, revoked, active, revoked]
    for _ in range(10):  # wherever the control stood
        assert list(prove(bench.store, asked)) == list(bench.store.find(asked))


def test_the_control_is_new_each_time_and_stands_anywhere(new_secret: NewSecret) -> None:
    store = Between(MemoryTokenStore())
    secrets = [new_secret() for _ in range(2)]
    for _ in range(100):
        prove(store, secrets)
    places, controls = set(), set()
    for asked in store.asked:
        assert [secret for secret in asked if secret in secrets] == secrets
        (control,) = set(asked) - set(secrets)
        places.add(asked.index(control))
        controls.add(control.reveal())
    assert places == {0, 1, 2}
    assert len(controls) == 100
    assert all(re.fullmatch(rb"[0-9A-Za-z]{84}", control) for control in controls)


def test_without_a_secret_the_store_is_left_alone() -> None:
    store = Between(MemoryTokenStore())
    assert prove(store, []) == []
    assert store.asked == []


@pytest.mark.parametrize(
    "claim",
    [Validity.ACTIVE, Validity.REVOKED, Validity.EXPIRED, Validity.OWNER_DISABLED],
)
def test_a_store_that_knows_everything_is_not_trusted(
    new_secret: NewSecret, claim: Validity
) -> None:
    store = MemoryTokenStore()
    secret = new_secret()
    store.claims = claim
    for _ in range(2):  # without a record to show, and with one
        with pytest.raises(StoreUntrustedError, match="knows a token that was never") as caught:
            prove(store, [secret])
        assert caught.value.retry is True
        store.issue(secret)
    store.claims = None
    assert prove(store, [secret])[0].validity is Validity.ACTIVE


def test_a_record_for_the_control_is_knowing_it(bench, new_secret: NewSecret) -> None:
    secret = new_secret()
    bench.issue(secret)
    (known,) = bench.store.find([secret])

    def mix_up(answers: Sequence[Lookup]) -> Sequence[Lookup]:
        return [Lookup(answer.validity, known.token) for answer in answers]

    with pytest.raises(StoreUntrustedError, match="never issued"):
        prove(Between(bench.store, mix_up), [secret])


@pytest.mark.parametrize("claim", [Validity.INACTIVE, Validity.NEVER_ISSUED])
def test_a_store_that_cannot_tell_more_is_trusted(new_secret: NewSecret, claim: Validity) -> None:
    store = MemoryTokenStore()
    store.claims = claim
    assert [lookup.validity for lookup in prove(store, [new_secret()])] == [claim]


@pytest.mark.parametrize(
    "miscount",
    [lambda answers: answers[:-1], lambda answers: answers[1:], lambda answers: [*answers] * 2],
)
def test_another_number_of_answers_is_not_trusted(
    bench,
    new_secret: NewSecret,
    miscount: Callable[[Sequence[Lookup]], Sequence[Lookup]],
) -> None:
    with pytest.raises(StoreUntrustedError, match="another number"):
        prove(Between(bench.store, miscount), [new_secret(), new_secret()])
    with pytest.raises(StoreUntrustedError, match="another number"):
        prove(Between(bench.store, lambda _: ()), [new_secret()])


def test_a_store_that_is_away_is_no_liar(bench, new_secret: NewSecret) -> None:
    with pytest.raises(StoreUnavailableError):
        prove(bench.take_away(), [new_secret()])
