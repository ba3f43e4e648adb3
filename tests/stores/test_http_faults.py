"""A token service that fails, lies or is hostile: an error of ours, at the right time, that shows
nothing of it."""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from scanner.errors import StoreError, StoreUnavailableError, StoreUntrustedError
from scanner.model import Secret, Validity
from scanner.prove import prove
from tests.servers.token_service import Fault, drip, hang_up, raw, slow, status

NewSecret = Callable[[], Secret]
KINDS = ["rfc", "batch", "single"]
SPY = b"spy-9b7e"  # stands in every hostile body; no error may show it


def said_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def fails(store: Any, secret: Secret, kind: type[StoreError] = StoreUnavailableError) -> str:
    """Ask about a token; returns what the error says, after a look at what it must not."""
    with pytest.raises(kind) as caught:
        store.find([secret])
    shown = said_of(caught.value)
    assert SPY.decode() not in shown
    text = secret.reveal().decode()
    assert not any(text[at : at + 8] in shown for at in range(len(text) - 7))
    assert caught.value.retry
    assert "acme" in str(caught.value)
    return str(caught.value)


NO_ANSWERS: dict[str, Fault] = {
    "html": raw(b"<html>" + SPY, "text/html"),
    "html with an error": raw(SPY, "text/html", 502),
    "html that says json": raw(b"<html>" + SPY),
    "no content type": lambda call: call.raw(200, b'{"active": false, "x": "spy-9b7e"}'),
    "nothing": raw(b""),
    "half": raw(b'{"active": false, "x": "spy-9b7e'),
    "two": raw(b'{"active": false}{"x": "spy-9b7e"}'),
    "null": raw(b"null"),
    "a number": raw(b"17"),
    "a list": raw(b'["spy-9b7e"]'),
    "a text": raw(b'"spy-9b7e"'),
    "another shape": raw(b'{"error": "spy-9b7e"}'),
    "a text for true": raw(b'{"active": "spy-9b7e", "results": "spy-9b7e"}'),
    "null for true": raw(b'{"active": null, "results": null, "token": {"status": null}}'),
    "twice the same name": raw(b'{"active": true, "active": false, "x": "spy-9b7e"}'),
    "not a number": raw(b'{"active": false, "x": NaN}'),
    "deep": raw(b"[" * 100_000),
    "a long number": raw(b'{"active": false, "x": ' + b"9" * 100_000 + b"}"),
    "not utf-8": raw(b'{"active": false, "x": "\xff spy-9b7e"}'),
    "compressed": raw(SPY, **{"Content-Encoding": "gzip"}),
    "ten megabytes": raw(b'"' + SPY * (10 << 17) + b'"'),
    "ten megabytes of error": raw(SPY * (10 << 17), "text/html", 500),
    "ended too early": raw(b"{", **{"Content-Length": "99"}),
    "redirect": status(302, Location="http://127.0.0.1:9/spy-9b7e"),
    "redirect for good": status(308, Location="http://127.0.0.1:9/spy-9b7e"),
    "created": status(201),
    "no content": lambda call: call.raw(204, b""),
    "bad request": status(400),
    "refused": status(401),
    "forbidden": status(403),
    "too many": status(429),
    "broken": status(500),
    "away": status(503, Retry_After="3600"),
    "hung up": hang_up,
    "not http": lambda call: (call.socket.sendall(SPY * 100), hang_up(call))[0],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", NO_ANSWERS)
def test_what_is_no_answer_is_an_error(world, new_secret: NewSecret, kind: str, fault: str) -> None:
    secret = new_secret()
    world.service.issue(secret)
    world.service.faults = [NO_ANSWERS[fault]] * 9
    store = world.open(kind, limits={"attempts": 1})
    fails(store, secret)
    world.service.faults = []
    assert store.find([secret])[0].validity is Validity.ACTIVE  # and the next one is read


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_drips_is_cut_off(world, new_secret: NewSecret, kind: str) -> None:
    release = threading.Event()
    world.service.faults = [drip(release), drip(release)]
    store = world.open(kind, limits={"attempts": 2, "seconds": 0.2})
    began = time.monotonic()
    assert "TimeoutError" in fails(store, new_secret())
    assert time.monotonic() - began < 5
    assert world.service.faults == []  # both attempts were made
    release.set()


def test_all_attempts_together_have_a_budget(world, new_secret: NewSecret) -> None:
    release = threading.Event()
    world.service.faults = [slow(release)] * 9
    store = world.open("rfc", limits={"attempts": 9, "seconds": 5, "budget_seconds": 0.3})
    began = time.monotonic()
    assert "in 0.3 seconds" in fails(store, new_secret())
    assert time.monotonic() - began < 4
    release.set()


def test_a_service_that_is_not_there(world, new_secret: NewSecret) -> None:
    store = world.open("rfc")
    world.service.stop()
    assert "ConnectError" in fails(store, new_secret())
    world.service.start()
    assert store.find([new_secret()])[0].validity is Validity.INACTIVE


def rows(change: Callable[[list[Any]], Any]) -> Callable[[Any], Any]:
    return lambda value: {"results": change(value["results"])}


LIES: dict[str, Callable[[list[Any]], Any]] = {
    "one less": lambda items: items[1:],
    "one more": lambda items: [*items, items[0]],
    "none": lambda _: [],
    "a known token without its id": lambda items: [{**i, "id": None} for i in items],
}
ECHO_LIES: dict[str, Callable[[list[Any]], Any]] = {
    **LIES,
    "twice the same": lambda items: [items[0]] * len(items),
    "another's": lambda items: [{**item, "sha256": "0" * 64} for item in items],
    "nobody's": lambda items: [{**item, "sha256": None} for item in items],
    "nulls": lambda items: [None] * len(items),
}


@pytest.mark.parametrize(
    ("echo", "lie"), [(False, lie) for lie in LIES] + [(True, lie) for lie in ECHO_LIES]
)
def test_an_answer_that_contradicts_itself_is_not_believed(
    world, new_secret: NewSecret, echo: bool, lie: str
) -> None:
    secrets = [new_secret() for _ in range(3)]
    for secret in secrets:
        world.service.issue(secret)
    world.service.change = rows(ECHO_LIES[lie])
    find = {"echo": "sha256", "echo_is": "sha256"} if echo else {}
    store = world.open("batch", find=find)
    with pytest.raises(StoreUntrustedError) as caught:
        store.find(secrets)
    assert not any(secret.reveal().decode() in said_of(caught.value) for secret in secrets)
    assert len(world.service.asked) == 1  # a lie is not asked for again


def test_another_order_is_put_right_where_the_service_echoes(world, new_secret: NewSecret) -> None:
    secrets = [new_secret() for _ in range(4)]
    ids = [world.service.issue(secret) for secret in secrets]
    world.service.change = rows(lambda items: items[::-1])
    store = world.open("batch", find={"echo": "sha256", "echo_is": "sha256"})
    assert [lookup.token.token_id for lookup in store.find(secrets)] == ids


def test_another_order_freezes_where_it_does_not(world, new_secret: NewSecret) -> None:
    """The control of that request comes back known: only its place can tell."""
    secrets = [new_secret() for _ in range(60)]
    for secret in secrets:
        world.service.issue(secret)
    store = world.open("batch", find={"batch": 20})
    usual = world.service.respond

    def mixed_up(call: Any) -> None:
        world.service.change = rows(lambda items: [*items[1:], items[0]])
        usual(call)
        world.service.change = lambda value: value

    world.service.faults = [usual, usual, mixed_up]  # in one request of four
    with pytest.raises(StoreUntrustedError, match="never issued"):
        store.find(secrets)


def test_a_service_may_leave_out_what_it_does_not_know(world, new_secret: NewSecret) -> None:
    known, unknown = new_secret(), new_secret()
    world.service.issue(known)
    world.service.change = rows(lambda items: [i for i in items if i["status"] != "unknown"])
    find = {"echo": "sha256", "echo_is": "sha256", "omits_unknown": True}
    store = world.open("batch", find=find)
    answers = [lookup.validity for lookup in store.find([unknown, known])]
    assert answers == [Validity.NEVER_ISSUED, Validity.ACTIVE]


def test_a_null_is_never_issued_but_nothing_is_no_answer(world, new_secret: NewSecret) -> None:
    store = world.open("single")
    world.service.faults = [raw(b'{"token": null}')]
    assert store.find([new_secret()])[0].validity is Validity.NEVER_ISSUED
    world.service.faults = [raw(b'{"error": "database"}')] * 3
    assert "nothing at find.item" in fails(store, new_secret())


def test_a_store_that_calls_everything_active_is_found_out(world, new_secret: NewSecret) -> None:
    world.service.change = lambda value: {**value, "active": True, "jti": "t1"}
    with pytest.raises(StoreUntrustedError, match="never issued"):
        prove(world.open("rfc"), [new_secret()])


@pytest.mark.parametrize("name", ["jti", "sub", "username", "scope"])
def test_a_token_that_is_named_by_itself_is_not_kept(
    world, new_secret: NewSecret, name: str
) -> None:
    secret = new_secret()
    token_id = world.service.issue(secret)
    text = secret.reveal().decode()

    def change(value: Any) -> Any:
        mine = value.get("jti") == token_id
        return {**value, name: f"id:{text}" if name == "jti" else text} if mine else value

    world.service.change = change
    store = world.open("rfc")
    if name == "jti":
        with pytest.raises(StoreUnavailableError, match=r"the token itself at fields\.token_id"):
            store.find([secret])
        # It is no answer about this one, and no lie.
        other = new_secret()
        world.service.issue(other)
        answers = [answer.validity for answer in prove(store, [secret, other])]
        assert answers == [Validity.STORE_UNAVAILABLE, Validity.ACTIVE]
    else:
        (lookup,) = store.find([secret])
        assert lookup.validity is Validity.ACTIVE
        assert text not in repr(lookup)
        assert lookup.token.owner_id == (None if name == "sub" else "Ada")


def test_a_strange_state_is_no_answer(world, new_secret: NewSecret) -> None:
    secret = new_secret()
    world.service.issue(secret)
    store = world.open("batch")
    for state in ("LIVE", "", None, 1, True, ["live"], {"live": 1}):
        world.service.change = lambda value, said=state: {
            "results": [{**item, "status": said} for item in value["results"]]
        }
        assert "not in [states]" in fails(store, secret)


@pytest.mark.parametrize("kind", ["batch", "single"])
@pytest.mark.parametrize(
    "strange", [{"status": "weird"}, {"to": "soon"}, {"id": "a b"}, {"scopes": 17}]
)
def test_one_strange_record_leaves_the_others_their_answers(
    world, new_secret: NewSecret, kind: str, strange: dict[str, Any]
) -> None:
    """Whoever holds a token in a state that nobody foresaw must not silence the rest."""
    odd, live, unknown = (new_secret() for _ in range(3))
    odd_id, live_id = world.service.issue(odd), world.service.issue(live)

    def change(value: Any) -> Any:
        if "token" in value:
            (item,) = spoilt([value["token"]])
            return {"token": item}
        return {"results": spoilt(value["results"])}

    def spoilt(items: list[Any]) -> list[Any]:
        return [{**item, **strange} if item.get("id") == odd_id else item for item in items]

    world.service.change = change
    store = world.open(kind, fields={"valid_to": "to", "scopes": "scopes"})
    answers = prove(store, [odd, live, unknown])
    assert [answer.validity for answer in answers] == [
        Validity.STORE_UNAVAILABLE, Validity.ACTIVE, Validity.NEVER_ISSUED,
    ]  # fmt: skip
    assert answers[0].token is None
    assert answers[1].token.token_id == live_id


def test_states_may_be_numbers_and_truths(world, new_secret: NewSecret) -> None:
    spelt = {"live": True, "revoked": False, "unknown": 0}
    states = {"active": [True], "revoked": [False], "never_issued": [0],
              "expired": None, "owner_disabled": None}  # fmt: skip
    world.service.change = rows(
        lambda items: [{**item, "status": spelt[item["status"]]} for item in items]
    )
    live, dead = new_secret(), new_secret()
    world.service.issue(live)
    world.service.revoke_by_hand(world.service.issue(dead))
    answers = world.open("batch", states=states).find([live, dead, new_secret()])
    assert [lookup.validity for lookup in answers] == [
        Validity.ACTIVE, Validity.REVOKED, Validity.NEVER_ISSUED,
    ]  # fmt: skip


def test_the_body_is_never_logged(world, new_secret: NewSecret, caplog: Any) -> None:
    secret = new_secret()
    token_id = world.service.issue(secret)
    caplog.set_level("DEBUG")
    for kind in KINDS:
        store = world.open(kind, limits={"failures": 2, "attempts": 3})
        world.service.faults = [status(503), raw(b"[" + SPY)]
        fails(store, secret)
        store = world.open(kind)
        store.find([secret])
        store.revoke(token_id, "incident-1", secret=secret)
    logged = "\n".join(record.getMessage() + json.dumps(vars(record), default=repr)
                       for record in caplog.records)  # fmt: skip
    assert "circuit breaker is open" in logged
    text = secret.reveal().decode()
    hidden = [SPY.decode(), world.bearer, *(text[at : at + 8] for at in range(len(text) - 7))]
    assert [piece for piece in hidden if piece in logged] == []


def test_a_token_never_stands_in_an_address(world, new_secret: NewSecret) -> None:
    secret = new_secret()
    token_id = world.service.issue(secret)
    for kind in KINDS:
        store = world.open(kind)
        prove(store, [secret, new_secret()])
        store.revoke(token_id, "incident-1", secret=secret)
    text = secret.reveal().decode()
    shown = " ".join(world.targets())
    assert not any(text[at : at + 8] in shown for at in range(len(text) - 7))
