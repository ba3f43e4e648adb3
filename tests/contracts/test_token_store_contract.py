"""What every `TokenStore` owes: validities, full proof, and revocation by one cause.

A store is asked for what it declares: where it cannot tell or do a thing, for what stands instead.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from scanner.errors import SecretNeededError, StoreUnavailableError
from scanner.model import Secret, Validity
from scanner.ports import TokenStore

NewSecret = Callable[[], Secret]
DAY = timedelta(days=1)


def validities(store: TokenStore, *secrets: Secret) -> list[Validity]:
    return [lookup.validity for lookup in store.find(secrets)]


def told(store: TokenStore, *whole: Validity) -> list[Validity]:
    """What a store says where one that knows reasons says `whole`."""
    reasons = store.abilities.tells_reason
    return [v if reasons or v is Validity.ACTIVE else Validity.INACTIVE for v in whole]


def revoke(
    store: TokenStore, secret: Secret, token_id: str, incident_id: str = "incident-1"
) -> bool:
    """Revoke as the store wants it: only one that revokes by the raw token is given it."""
    needed = secret if store.abilities.revokes_by == "secret" else None
    return store.revoke(token_id, incident_id, secret=needed)


def pieces(secret: Secret, length: int = 8) -> Iterable[str]:
    """Every run of so many characters: what is shown of a token is shorter."""
    text = secret.reveal().decode()
    return (text[begin : begin + length] for begin in range(len(text) - length + 1))


def test_an_active_token_comes_with_its_record(bench, new_secret: NewSecret) -> None:
    secret = new_secret()
    token_id = bench.issue(secret)
    (lookup,) = bench.store.find([secret])
    assert lookup.validity is Validity.ACTIVE
    record = lookup.token
    assert record is not None
    assert (record.store, record.token_id) == (bench.store.name, token_id)
    assert (record.organisation, record.owner_name) == ("Acme", "Ada")
    assert record.organisation_contact == "security@acme.example"
    assert record.name == ("" if "name" in bench.untold else "deploy")
    assert record.owner_email == (None if "owner_email" in bench.untold else "ada@acme.example")
    assert record.organisation_id
    assert record.owner_id
    assert record.scopes == ("read", "write")
    assert record.pattern == "npm-access-token"
    assert record.mask == f"npm_…{secret.reveal()[-4:].decode()}"
    assert record.valid_from is not None
    assert record.valid_to is not None
    assert record.valid_from.tzinfo is not None
    assert record.valid_from <= datetime.now(UTC) < record.valid_to


def test_a_token_that_begins_later_is_active_already(bench, new_secret: NewSecret) -> None:
    secret = new_secret()
    bench.issue(secret, begins=DAY)
    (lookup,) = bench.store.find([secret])
    if lookup.validity is Validity.INACTIVE:  # a store without reasons cannot say "not yet"
        assert bench.store.abilities.tells_reason is False
        return
    assert lookup.validity is Validity.ACTIVE
    assert lookup.token.valid_from > datetime.now(UTC)


def test_each_validity_is_told_apart(bench, new_secret: NewSecret) -> None:
    active, revoked, ours, expired, disabled, unknown = (new_secret() for _ in range(6))
    known = {
        active: bench.issue(active),
        revoked: bench.issue(revoked),
        ours: bench.issue(ours),
        expired: bench.issue(expired, ends=-DAY),
        disabled: bench.issue(disabled, owner="Grace"),
    }
    assert bench.revoke_by_hand(known[revoked])
    assert revoke(bench.store, ours, known[ours])
    bench.disable_owner("Grace")
    asked = [active, revoked, ours, expired, disabled, unknown]
    answers = bench.store.find(asked)
    assert [lookup.validity for lookup in answers] == told(
        bench.store,
        Validity.ACTIVE,
        Validity.REVOKED,
        Validity.REVOKED,
        Validity.EXPIRED,
        Validity.OWNER_DISABLED,
        Validity.NEVER_ISSUED,
    )
    shown = [*known.values(), None]
    if not bench.store.abilities.tells_reason:  # then nothing but an active token is known
        shown[1:] = [None] * 5
    assert [lookup.token and lookup.token.token_id for lookup in answers] == shown


def test_of_several_ends_one_is_told(bench, new_secret: NewSecret) -> None:
    """Revoked is for good, so it goes before expired; expired, before what became of the owner."""
    all_three, two = new_secret(), new_secret()
    first = bench.issue(all_three, owner="Grace", ends=-DAY)
    bench.issue(two, owner="Grace", ends=-DAY)
    bench.disable_owner("Grace")
    assert bench.revoke_by_hand(first)
    expected = told(bench.store, Validity.REVOKED, Validity.EXPIRED)
    assert validities(bench.store, all_three, two) == expected


def test_answers_keep_the_order_and_the_duplicates(bench, new_secret: NewSecret) -> None:
    one, two, unknown = (new_secret() for _ in range(3))
    first, second = bench.issue(one), bench.issue(two)
    asked = [two, unknown, one, two, Secret(two.reveal()), unknown, one]
    answers = [lookup.token and lookup.token.token_id for lookup in bench.store.find(asked)]
    assert answers == [second, None, first, second, second, None, first]


def test_nothing_asked_nothing_answered(bench) -> None:
    assert list(bench.store.find([])) == []


def test_a_batch_of_more_than_a_thousand(bench, new_secret: NewSecret) -> None:
    asked = [new_secret() for _ in range(1_203)]
    known = [bench.issue(secret) if place % 5 else None for place, secret in enumerate(asked)]
    answers = bench.store.find(asked)
    assert [lookup.token and lookup.token.token_id for lookup in answers] == known


def test_only_the_whole_token_is_proof(bench, new_secret: NewSecret) -> None:
    secret = new_secret()
    token_id = bench.issue(secret)
    raw = secret.reveal()
    (lookup,) = bench.store.find([secret])
    near = [
        *(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] for at in (0, 4, 20, len(raw) - 1)),
        *(raw[:end] for end in (0, 1, 12, len(raw) - 1)),
        raw[1:],
        raw + b"0",
        raw + b"\0",
        raw + b"\n",
        b" " + raw,
        raw + raw,
        raw.swapcase(),
        raw.lower(),
        raw[::-1],
        token_id.encode(),
        lookup.token.mask.encode(),
        b"%",
        b"\xff" * len(raw),
    ]
    unknown = set(told(bench.store, Validity.NEVER_ISSUED))
    assert set(validities(bench.store, *map(Secret, near))) == unknown
    assert validities(bench.store, secret) == [Validity.ACTIVE]


def test_a_leak_is_revoked_once_and_by_its_incident(bench, new_secret: NewSecret) -> None:
    secret, other = new_secret(), new_secret()
    token_id = bench.issue(secret)
    bench.issue(other)
    another = not bench.store.abilities.keeps_cause  # then what is at its end counts as ours
    assert revoke(bench.store, secret, token_id, "incident-1") is True
    expected = told(bench.store, Validity.REVOKED, Validity.ACTIVE)
    assert validities(bench.store, secret, other) == expected
    assert revoke(bench.store, secret, token_id, "incident-1") is True  # again, after a crash
    assert revoke(bench.store, secret, token_id, "incident-2") is another
    assert revoke(bench.store, secret, token_id, "incident-1") is True
    assert bench.revoke_by_hand(token_id) is False


def test_what_the_owner_revoked_is_not_our_act(bench, new_secret: NewSecret) -> None:
    secret = new_secret()
    token_id = bench.issue(secret)
    ours = not bench.store.abilities.keeps_cause
    assert bench.revoke_by_hand(token_id) is True
    assert revoke(bench.store, secret, token_id) is ours
    assert revoke(bench.store, secret, token_id) is ours
    assert validities(bench.store, secret) == told(bench.store, Validity.REVOKED)


def test_a_store_that_needs_the_raw_token_says_so(bench, new_secret: NewSecret) -> None:
    secret = new_secret()
    token_id = bench.issue(secret)
    if bench.store.abilities.revokes_by == "id":
        assert bench.store.revoke(token_id, "incident-1") is True
        return
    with pytest.raises(SecretNeededError) as caught:
        bench.store.revoke(token_id, "incident-1")
    assert caught.value.retry is False  # nobody will find it later
    assert validities(bench.store, secret) == [Validity.ACTIVE]


def test_a_secret_that_was_never_issued_revokes_nothing(bench, new_secret: NewSecret) -> None:
    secret, unknown = new_secret(), new_secret()
    bench.issue(secret)
    answer = revoke(bench.store, unknown, "nobody")
    assert answer is not bench.store.abilities.tells_reason  # else it is as dead as any other
    assert validities(bench.store, secret) == [Validity.ACTIVE]


@pytest.mark.parametrize("token_id", ["nobody", "", "%", "a' OR '1'='1", "\0", "x" * 10_000, "é"])
def test_an_unknown_id_revokes_nothing(bench, new_secret: NewSecret, token_id: str) -> None:
    secret = new_secret()
    bench.issue(secret)
    if bench.store.abilities.revokes_by == "id":
        assert bench.store.revoke(token_id, "incident-1") is False
    else:  # the id says nothing: whose token it is, is in the raw token
        with pytest.raises(SecretNeededError):
            bench.store.revoke(token_id, "incident-1")
    assert validities(bench.store, secret) == [Validity.ACTIVE]


@pytest.mark.parametrize("before", [Validity.ACTIVE, Validity.EXPIRED, Validity.OWNER_DISABLED])
def test_whatever_was_not_revoked_can_be(bench, new_secret: NewSecret, before: Validity) -> None:
    """Expiry may be prolonged and an account opened again: revocation outlasts both."""
    secret = new_secret()
    ends = -DAY if before is Validity.EXPIRED else DAY
    token_id = bench.issue(secret, owner="Grace", begins=2 * -DAY, ends=ends)
    if before is Validity.OWNER_DISABLED:
        bench.disable_owner("Grace")
    assert validities(bench.store, secret) == told(bench.store, before)
    assert revoke(bench.store, secret, token_id, "incident-1") is True
    another = not bench.store.abilities.keeps_cause
    assert revoke(bench.store, secret, token_id, "incident-2") is another
    assert validities(bench.store, secret) == told(bench.store, Validity.REVOKED)
    assert bench.revoke_by_hand(token_id) is False


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls in threads that begin together; returns what they return."""
    gate = threading.Barrier(len(calls))
    answers: list[Any] = [None] * len(calls)

    def run(place: int, call: Callable[[], Any]) -> None:
        gate.wait(30)
        answers[place] = call()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_of_many_incidents_at_once_one_revokes(bench, new_secret: NewSecret) -> None:
    for _ in range(5):
        secret = new_secret()
        token_id = bench.issue(secret)
        names = [f"incident-{number}" for number in range(8)]
        answers = at_once(*(partial(revoke, bench.store, secret, token_id, name) for name in names))
        if bench.store.abilities.keeps_cause:
            assert sorted(answers, key=bool) == [False] * 7 + [True]
        else:
            assert answers == [True] * 8
        assert [revoke(bench.store, secret, token_id, name) for name in names] == answers
        assert validities(bench.store, secret) == told(bench.store, Validity.REVOKED)


def test_of_owner_and_incident_at_once_one_revokes(bench, new_secret: NewSecret) -> None:
    for _ in range(5):
        secret = new_secret()
        token_id = bench.issue(secret)
        by_hand, ours = at_once(
            partial(bench.revoke_by_hand, token_id),
            partial(revoke, bench.store, secret, token_id),
        )
        assert ours is (not by_hand or not bench.store.abilities.keeps_cause)


def test_one_incident_many_times_at_once_is_one_act(bench, new_secret: NewSecret) -> None:
    secret = new_secret()
    token_id = bench.issue(secret)
    assert at_once(*[partial(revoke, bench.store, secret, token_id)] * 8) == [True] * 8


def test_a_store_that_is_away_says_so(bench, new_secret: NewSecret) -> None:
    secret = new_secret()
    token_id = bench.issue(secret)
    store = bench.take_away()
    for ask in (partial(store.find, [secret]), partial(revoke, store, secret, token_id)):
        with pytest.raises(StoreUnavailableError) as caught:
            ask()
        assert caught.value.retry is True
        said = "".join(traceback.format_exception(caught.value))
        assert not any(piece in said for piece in pieces(secret))


def test_answers_show_nothing_secret(bench, new_secret: NewSecret) -> None:
    secrets = [new_secret() for _ in range(3)]
    bench.issue(secrets[0])
    bench.revoke_by_hand(bench.issue(secrets[1]))
    shown = f"{bench.store!r} {bench.store} {vars(bench.store)} {bench.store.find(secrets)!r}"
    assert "npm_…" in shown
    assert not any(piece in shown for secret in secrets for piece in pieces(secret))
