"""Revocation at a remote service: requested, then confirmed, at least once (law 4, threat 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scanner.errors import SecretNeededError, StoreUnavailableError
from scanner.model import Secret, Validity
from scanner.prove import prove
from tests.servers.token_service import hang_up, raw, status

NewSecret = Callable[[], Secret]
KINDS = ["rfc", "batch", "single"]
# A mapped service that revokes by the token itself: it is looked up again by itself, too.
BY_SECRET: dict[str, Any] = {
    "revoke": {"body": {"token": "{token}"}},
    "confirm": None,
    "fields": {"revoked_by": None},
}


def by_secret(world) -> dict[str, Any]:
    return {**BY_SECRET, "revoke": {"url": f"{world.service.url}/v1/revoke", **BY_SECRET["revoke"]}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_that_forgets_is_not_believed(world, new_secret: NewSecret, kind: str) -> None:
    """It says 200, and the token works on: nothing is recorded as done, until it is."""
    secret = new_secret()
    token_id = world.service.issue(secret)
    store = world.open(kind)
    world.service.forgets = True
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="does not show it") as caught:
            store.revoke(token_id, "incident-1", secret=secret)
        assert caught.value.retry
    assert store.find([secret])[0].validity is Validity.ACTIVE
    world.service.forgets = False
    assert store.revoke(token_id, "incident-1", secret=secret) is True
    assert store.find([secret])[0].validity is not Validity.ACTIVE


@pytest.mark.parametrize("kind", KINDS)
def test_every_revocation_is_looked_up_again(world, new_secret: NewSecret, kind: str) -> None:
    secret = new_secret()
    token_id = world.service.issue(secret)
    assert world.open(kind).revoke(token_id, "incident-1", secret=secret) is True
    if kind == "rfc":
        assert world.targets() == ["/oauth/revoke", "/oauth/introspect"]
    else:
        assert world.targets() == [f"/v1/tokens/{token_id}/revoke", f"/v1/tokens/{token_id}"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_replica_is_given_time(world, new_secret: NewSecret, kind: str) -> None:
    """The first look-ups meet one that has not heard of it."""
    secret = new_secret()
    token_id = world.service.issue(secret)
    store = world.open(kind, limits={"confirm_seconds": 20})
    (before,) = store.find([secret])
    assert before.validity is Validity.ACTIVE
    old = {"active": True, "jti": token_id, "token": {"status": "live"}}
    stale = [lambda call: call.answer(200, old)] * 2
    world.service.faults = stale
    world.service.faulty = "/oauth/introspect" if kind == "rfc" else f"/v1/tokens/{token_id}"
    if kind != "rfc":  # the revocation itself has that address, too
        world.service.faults = [lambda call: call.usual(), *stale]
    assert store.revoke(token_id, "incident-1", secret=secret) is True
    assert world.service.faults == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("broken", [status(500), hang_up])
def test_killed_between_request_and_confirmation(
    world, new_secret: NewSecret, kind: str, broken: Any
) -> None:
    """The service heard us and we do not know: the same incident asks again, and it was its act."""
    secret = new_secret()
    token_id = world.service.issue(secret)
    store = world.open(kind, limits={"attempts": 1})

    def heard_and_broken(call: Any) -> None:
        world.service.tokens.revoke(token_id, "incident-1")
        world.service.causes[token_id] = "incident-1"
        broken(call)

    world.service.faults = [heard_and_broken]
    with pytest.raises(StoreUnavailableError):
        store.revoke(token_id, "incident-1", secret=secret)
    assert store.revoke(token_id, "incident-1", secret=secret) is True


def test_a_token_that_expired_meanwhile_is_at_its_end(world, new_secret: NewSecret) -> None:
    secret = new_secret()
    token_id = world.service.issue(secret)
    world.service.forgets = True  # and says "expired" before "revoked"
    world.service.change = lambda value: {"token": {**value["token"], "status": "lapsed"}}
    store = world.open("single", fields={"revoked_by": None})
    assert store.revoke(token_id, "incident-1") is True
    # One that keeps causes would have told ours.
    assert world.open("single").revoke(token_id, "incident-1") is False


def test_a_dormant_token_is_not_at_its_end(world, new_secret: NewSecret) -> None:
    """It works again on the day its owner comes back."""
    secret = new_secret()
    token_id = world.service.issue(secret, owner="Grace")
    world.service.tokens.disable_owner("Grace")
    store = world.open("single")
    world.service.forgets = True
    with pytest.raises(StoreUnavailableError, match="does not show it"):
        store.revoke(token_id, "incident-1")
    world.service.forgets = False
    assert store.revoke(token_id, "incident-1") is True


@pytest.mark.parametrize("code", [404, 409, 410])
def test_what_the_service_says_of_a_dead_token_is_looked_up(
    world, new_secret: NewSecret, code: int
) -> None:
    secret = new_secret()
    token_id = world.service.issue(secret)
    assert world.service.revoke_by_hand(token_id)
    store = world.open("single")
    world.service.faults = [status(code)]
    assert store.revoke(token_id, "incident-1") is False
    world.service.faults = [status(code)]
    assert store.revoke("unknown", "incident-1") is False


PROXIES = {
    "html": raw(b"<html>default backend", "text/html", 404),
    "text": raw(b"no healthy upstream", "text/plain", 404),
    "nothing": lambda call: call.raw(404, b""),
    "no json": raw(b"<html>", code=404),
}


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_404_of_whatever_stands_before_the_service_says_nothing(
    world, new_secret: NewSecret, kind: str, proxy: str
) -> None:
    """It is being deployed: every path is unknown to the proxy, and the token works on."""
    secret = new_secret()
    token_id = world.service.issue(secret)
    store = world.open(kind, limits={"attempts": 1})
    world.service.faults = [PROXIES[proxy]] * 9
    with pytest.raises(StoreUnavailableError):
        prove(store, [secret])
    with pytest.raises(StoreUnavailableError):
        store.revoke(token_id, "incident-1", secret=secret)
    world.service.faults = []
    assert prove(store, [secret])[0].validity is Validity.ACTIVE
    assert store.revoke(token_id, "incident-1", secret=secret) is True
    assert prove(store, [secret])[0].validity is not Validity.ACTIVE


def test_without_missing_no_status_says_that_a_token_is_unknown(
    world, new_secret: NewSecret
) -> None:
    """Gateways speak JSON, too: which statuses are the service's own, its operator must say."""
    secret = new_secret()
    token_id = world.service.issue(secret)
    silent = {"find": {"missing": None}, "confirm": {"missing": None}, "limits": {"attempts": 1}}
    store = world.open("single", **silent)
    world.service.faults = [status(404)] * 9
    with pytest.raises(StoreUnavailableError, match="HTTP 404"):
        store.find([secret])
    with pytest.raises(StoreUnavailableError, match="HTTP 404"):
        store.revoke(token_id, "incident-1")
    world.service.faults = []
    assert store.revoke(token_id, "incident-1") is True


@pytest.mark.parametrize("is_replicated", [False, True])
def test_a_service_that_deletes_what_it_revokes(
    world, new_secret: NewSecret, is_replicated: bool
) -> None:
    """Unknown after "done" is our act; after "unknown" somebody's, unless it may be a replica's."""
    secret = new_secret()
    token_id = world.service.issue(secret)
    store = world.open("single", is_replicated=is_replicated)

    def delete(call: Any) -> None:
        world.service.revoke_by_hand(token_id)
        call.answer(204)

    world.service.faults = [delete, status(404)]
    assert store.revoke(token_id, "incident-1") is True
    world.service.faults = [status(404)] * 9
    if is_replicated:
        with pytest.raises(StoreUnavailableError, match="does not show it"):
            store.revoke(token_id, "incident-1")
    else:
        assert store.revoke(token_id, "incident-1") is False


@pytest.mark.parametrize("code", [400, 401, 403, 422])
def test_a_refused_revocation_is_no_revocation(world, new_secret: NewSecret, code: int) -> None:
    secret = new_secret()
    token_id = world.service.issue(secret)
    world.service.faults = [status(code)]
    with pytest.raises(StoreUnavailableError, match=f"HTTP {code}"):
        world.open("single").revoke(token_id, "incident-1")
    assert len(world.service.asked) == 1


@pytest.mark.parametrize(
    "token_id", ["", ".", "..", "a b", "a\0", "\n", "x" * 201, "\x7f", "\ud800"]
)
def test_what_can_be_no_id_is_not_sent(world, token_id: str) -> None:
    assert world.open("single").revoke(token_id, "incident-1") is False
    assert world.service.asked == []


@pytest.mark.parametrize(
    ("token_id", "segment"),
    [("a/../b", "a%2F..%2Fb"), ("a?b#c", "a%3Fb%23c"), ("é", "%C3%A9"), ("%2e", "%252e")],
)
def test_an_id_stays_one_segment_of_the_address(world, token_id: str, segment: str) -> None:
    assert world.open("single").revoke(token_id, "incident-1") is False
    assert world.targets() == [f"/v1/tokens/{segment}/revoke", f"/v1/tokens/{segment}"]


@pytest.mark.parametrize("kind", ["batch", "single"])
def test_a_mapped_service_may_revoke_by_the_token_itself(
    world, new_secret: NewSecret, kind: str
) -> None:
    secret = new_secret()
    token_id = world.service.issue(secret)
    store = world.open(kind, **by_secret(world))
    assert store.abilities.revokes_by == "secret"
    assert store.abilities.keeps_cause is False
    with pytest.raises(SecretNeededError, match="by hand"):
        store.revoke(token_id, "incident-1")
    assert world.service.asked == []

    def revoke(call: Any) -> None:
        assert secret.reveal() in call.asked.body
        world.service.revoke_by_hand(token_id)
        call.answer(200, {})

    world.service.faults = [revoke]
    assert store.revoke(token_id, "incident-1", secret=secret) is True
    assert len(world.service.asked) == 2


def test_the_raw_token_is_not_sent_to_who_revokes_by_id(world, new_secret: NewSecret) -> None:
    secret = new_secret()
    token_id = world.service.issue(secret)
    assert world.open("single").revoke(token_id, "incident-1", secret=secret) is True
    assert not any(secret.reveal() in asked.body for asked in world.service.asked)
