"""What happens to a token in its life: each step with its record, the same on every database."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Barrier, Thread
from typing import Any

import pytest
from sqlalchemy import delete

from scanner.db.schema import digest_chains
from scanner.errors import ConflictError, NotFoundError, RequestInvalidError
from scanner.model import Secret, Validity

ACTOR = "test"
FUTURE = datetime.now(UTC) + timedelta(days=400)


def test_a_token_is_told_without_its_digest(desk) -> None:
    secret, made = desk.create(scopes=["read", "write", "read"], external_id="T-1")
    assert {
        "name": "ci", "organisation": "Acme", "owner": "Ada", "pattern": "npm-access-token",
        "mask": "npm_…a1B2", "scopes": ["read", "write"], "validity": "active",
        "revoked_at": None, "revoked_by": None, "predecessor_id": None, "external_id": "T-1",
    }.items() <= made.items()  # fmt: skip
    assert made == desk.tokens.get(made["id"])
    assert "digest" not in made
    assert desk.validity(secret) is Validity.ACTIVE
    (event,) = desk.events("token.issued")
    assert (event["actor"], event["token_id"]) == (ACTOR, made["id"])
    assert (event["data"]["scopes"], event["data"]["owner_id"]) == (
        ["read", "write"],
        desk.ada["id"],
    )


def test_an_update_is_recorded_with_before_and_after(desk) -> None:
    _, made = desk.create()
    changes = {"name": " nightly ", "scopes": ["all"], "valid_to": FUTURE}
    after = desk.tokens.update(made["id"], changes, actor=ACTOR)
    assert (after["name"], after["scopes"]) == ("nightly", ["all"])
    (event,) = desk.events("token.updated")
    assert event["data"]["before"] == {
        "name": "ci", "scopes": ["read"], "valid_to": made["valid_to"]
    }  # fmt: skip
    assert event["data"]["after"] == {
        "name": "nightly", "scopes": ["all"], "valid_to": after["valid_to"]
    }  # fmt: skip
    assert desk.tokens.update(made["id"], {"name": "nightly"}, actor=ACTOR) == after
    assert desk.tokens.update(made["id"], {"valid_to": None}, actor=ACTOR)["valid_to"] is None
    assert len(desk.events("token.updated")) == 2  # a change of nothing is none


def test_a_rotated_token_has_one_successor(desk, new_secret: Callable[[], Secret]) -> None:
    old_secret, old = desk.create(scopes=["a", "b"], external_id="T-1")
    secret = new_secret()
    new = desk.tokens.rotate(old["id"], secret, mask="npm_…zzzz", overlap=600, actor=ACTOR)
    assert (new["name"], new["owner"], new["scopes"], new["external_id"]) == (
        "ci", "Ada", ["a", "b"], "T-1",
    )  # fmt: skip
    assert (new["predecessor_id"], new["mask"]) == (old["id"], "npm_…zzzz")
    assert [desk.validity(old_secret), desk.validity(secret)] == [Validity.ACTIVE] * 2
    now = datetime.now(UTC)
    end = datetime.fromisoformat(desk.tokens.get(old["id"])["valid_to"])
    assert now + timedelta(seconds=500) < end < now + timedelta(seconds=601)
    length = datetime.fromisoformat(new["valid_to"]) - datetime.fromisoformat(new["valid_from"])
    assert length == timedelta(days=30)
    with pytest.raises(ConflictError, match=f"rotate its successor {new['id']}"):
        desk.tokens.rotate(old["id"], new_secret(), mask="m", actor=ACTOR)
    (event,) = desk.events("token.rotated")
    assert event["data"]["successor_id"] == new["id"]


def test_without_overlap_the_old_token_ends_at_once(desk, new_secret) -> None:
    old_secret, old = desk.create()
    secret = new_secret()
    desk.tokens.rotate(old["id"], secret, mask="m", days=3, actor=ACTOR)
    assert [desk.validity(old_secret), desk.validity(secret)] == [
        Validity.EXPIRED,
        Validity.ACTIVE,
    ]


def test_an_overlap_prolongs_nothing(desk, new_secret) -> None:
    _, old = desk.create(days=1)
    desk.tokens.rotate(old["id"], new_secret(), mask="m", overlap=30 * 86_400, actor=ACTOR)
    assert desk.tokens.get(old["id"])["valid_to"] == old["valid_to"]


def test_revoking_a_leaked_predecessor_leaves_the_successor_alone(desk, new_secret) -> None:
    """Rotated meanwhile: the leak was proved before, and is revoked after."""
    old_secret, old = desk.create()
    desk.leak(old_secret)
    secret = new_secret()
    new = desk.tokens.rotate(old["id"], secret, mask="m", overlap=600, actor=ACTOR)
    (incident,) = desk.incidents()
    assert desk.store.revoke(incident["token_id"], incident["id"]) is True
    assert [desk.validity(old_secret), desk.validity(secret)] == [
        Validity.REVOKED,
        Validity.ACTIVE,
    ]
    assert desk.tokens.get(new["id"])["revoked_by"] is None


def test_of_two_rotations_at_once_one_succeeds(desk, new_secret) -> None:
    _, old = desk.create()
    gate, outcomes = Barrier(4), []

    def rotate() -> None:
        gate.wait(30)
        try:
            desk.tokens.rotate(old["id"], new_secret(), mask="m", actor=ACTOR)
            outcomes.append("rotated")
        except ConflictError:
            outcomes.append("refused")

    threads = [Thread(target=rotate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 3 + ["rotated"]
    assert len(desk.tokens.search().rows) == 2


def test_an_expired_token_can_be_brought_back_and_a_revoked_one_cannot(desk) -> None:
    secret, made = desk.create(valid_from=FUTURE, valid_to=None, days=None)
    assert desk.tokens.expire(made["id"], actor=ACTOR)["validity"] == "expired"
    assert desk.tokens.expire(made["id"], actor=ACTOR)["validity"] == "expired"
    assert len(desk.events("token.expired")) == 1
    desk.tokens.update(made["id"], {"valid_to": FUTURE}, actor=ACTOR)
    assert desk.validity(secret) is Validity.ACTIVE
    row, ours = desk.tokens.revoke(made["id"], actor="cli:ada")
    assert (row["validity"], row["revoked_by"], ours) == ("revoked", "cli:ada", True)
    for step in (
        partial(desk.tokens.update, made["id"], {"valid_to": None}, actor=ACTOR),
        partial(desk.tokens.update, made["id"], {"name": "x"}, actor=ACTOR),
        partial(desk.tokens.expire, made["id"], actor=ACTOR),
        partial(desk.tokens.rotate, made["id"], secret, mask="m", actor=ACTOR),
    ):
        with pytest.raises(ConflictError, match="revoked"):
            step()
    assert desk.validity(secret) is Validity.REVOKED


def test_a_revocation_says_whose_act_it_was(desk) -> None:
    _, made = desk.create()
    revoke = partial(desk.tokens.revoke, made["id"], actor="api:service")
    assert [revoke(cause=cause)[1] for cause in ("i-1", "i-1", "i-2", None, "i-1")] == [
        True, True, False, False, True,
    ]  # fmt: skip
    (event,) = desk.events("token.revoked")
    assert (event["actor"], event["data"]["cause"], event["data"]["before"]) == (
        "api:service", "i-1", "active",
    )  # fmt: skip


@pytest.mark.parametrize("who", ["owner", "organisation"])
def test_what_is_disabled_has_no_working_token(desk, new_secret, who: str) -> None:
    secret, made = desk.create()

    def enable(*, enabled: bool) -> None:
        if who == "owner":
            desk.accounts.enable_owner(desk.ada["id"], enabled=enabled, actor=ACTOR)
        else:
            desk.accounts.enable_organisation("Acme", enabled=enabled, actor=ACTOR)

    enable(enabled=False)
    enable(enabled=False)
    assert desk.validity(secret) is Validity.OWNER_DISABLED
    assert desk.store.authenticate(secret) is None
    with pytest.raises(ConflictError, match="disabled"):
        desk.create()
    with pytest.raises(ConflictError, match="disabled"):
        desk.tokens.rotate(made["id"], new_secret(), mask="m", actor=ACTOR)
    assert desk.tokens.search(validity=Validity.OWNER_DISABLED).rows == [
        desk.tokens.get(made["id"])
    ]
    enable(enabled=True)
    assert desk.validity(secret) is Validity.ACTIVE
    assert len(desk.events(f"{who}.disabled")) == len(desk.events(f"{who}.enabled")) == 1


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name is empty"),
    ({"name": " \t"}, "name is empty"),
    ({"name": "x" * 201}, "longer than 200"),
    ({"name": "a\0b"}, "control character"),
    ({"name": "a\nb"}, "control character"),
    ({"name": "a\u202eb"}, "turns text round"),
    ({"name": "a\ud800b"}, "control character"),
    ({"scopes": ["a b"]}, "printable ASCII"),
    ({"scopes": ["\0"]}, "printable ASCII"),
    ({"scopes": [""]}, "printable ASCII"),
    ({"scopes": ["x" * 101]}, "printable ASCII"),
    ({"scopes": [str(number) for number in range(101)]}, "more than 100"),
    ({"pattern": "Nonsense!"}, "no id of a token pattern"),
    ({"external_id": "\0"}, "control character"),
    ({"days": None, "valid_to": datetime(1971, 1, 1, tzinfo=UTC)}, "end before it begins"),
    ({"days": None, "valid_to": datetime(1, 1, 1, tzinfo=UTC)}, "between 1970 and 9999"),
    ({"valid_from": datetime.max.replace(tzinfo=UTC)}, "between 1970 and 9999"),
]


@pytest.mark.parametrize(("values", "said"), BAD)
def test_what_cannot_be_kept_is_refused_in_one_sentence(desk, values: Any, said: str) -> None:
    with pytest.raises(RequestInvalidError, match=said):
        desk.create(**values)
    assert desk.tokens.search().rows == []


@pytest.mark.parametrize("name", ["nobody", "", "\0", "x" * 5_000, "%", "\ud800", "0" * 24])
def test_whoever_is_not_there_is_not_found(desk, name: str) -> None:
    desk.create()
    for ask in (
        lambda: desk.create(owner=name),
        lambda: desk.create(organisation=name),
        lambda: desk.tokens.get(name),
        lambda: desk.tokens.revoke(name, actor=ACTOR),
        lambda: desk.tokens.search(organisation=name),
        lambda: desk.tokens.search(owner=name, organisation="Acme"),
        lambda: desk.accounts.owner(name),
    ):
        with pytest.raises(NotFoundError):
            ask()
    assert desk.tokens.search(pattern=name).rows == []


def test_pages_hold_every_token_once_while_others_come(desk, new_secret) -> None:
    ids = [desk.create(name=f"t{number}")[1]["id"] for number in range(23)]
    seen: list[str] = []
    cursor = None
    while True:
        page = desk.tokens.search(limit=5, cursor=cursor)
        seen += [row["id"] for row in page.rows]
        desk.create()  # newer than all that is listed
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == sorted(ids, key=lambda one: (desk.tokens.get(one)["created_at"], one))[::-1]


def test_lists_are_filtered(desk, new_secret) -> None:
    bot = desk.accounts.create_owner(
        organisation="Acme", name="deploy bot", email=None, kind="bot", actor=ACTOR
    )
    other = desk.accounts.create_organisation(name="Globex", contact=None, actor=ACTOR)
    desk.accounts.create_owner(organisation="Globex", name="Ada", email=None, actor=ACTOR)
    _, first = desk.create()
    _, of_bot = desk.create(owner="deploy bot")
    _, elsewhere = desk.create(organisation="Globex", pattern="own-token")
    _, revoked = desk.create()
    desk.tokens.revoke(revoked["id"], actor=ACTOR)
    _, expired = desk.create()
    desk.end(expired["id"])

    def ids(**filters: Any) -> set[str]:
        return {row["id"] for row in desk.tokens.search(**filters).rows}

    everything = {row["id"] for row in (first, of_bot, elsewhere, revoked, expired)}
    assert ids() == everything
    assert ids(organisation="Globex") == ids(organisation=other["id"]) == {elsewhere["id"]}
    assert ids(owner=bot["id"]) == ids(owner="deploy bot", organisation="Acme") == {of_bot["id"]}
    assert ids(pattern="own-token") == {elsewhere["id"]}
    assert ids(validity=Validity.REVOKED) == {revoked["id"]}
    assert ids(validity=Validity.EXPIRED, organisation="Acme") == {expired["id"]}
    assert ids(validity=Validity.ACTIVE) == {first["id"], of_bot["id"], elsewhere["id"]}
    with pytest.raises(RequestInvalidError, match="one of: active"):
        ids(validity=Validity.NEVER_ISSUED)


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", "e30", "WzFd", "WzEsMl0", "WyIxIiwiYSJd", "WzEsIlx1MDAwMCJd", "bnVsbA"]
)
def test_a_cursor_that_no_list_gave_is_refused(desk, cursor: str) -> None:
    with pytest.raises(RequestInvalidError, match="none that a list gave"):
        desk.tokens.search(cursor=cursor)


def test_a_chain_that_was_removed_comes_back_before_it_is_used(desk) -> None:
    with desk.engine.begin() as connection:
        connection.execute(delete(digest_chains))
    secret, _ = desk.create()
    assert desk.validity(secret) is Validity.ACTIVE


def test_random_lives_leave_a_whole_record(desk, new_secret) -> None:
    """Every change is an event: as many as there were."""
    rng = random.Random(5)
    ids = [desk.create()[1]["id"] for _ in range(3)]
    done = 0
    for _ in range(30):
        step = rng.choice(["update", "rotate", "expire"])
        token_id = rng.choice(ids)
        try:
            if step == "rotate":
                made = desk.tokens.rotate(token_id, new_secret(), mask="m", actor=ACTOR)
                ids.append(made["id"])
            elif step == "expire":
                before = desk.tokens.get(token_id)["validity"]
                desk.tokens.expire(token_id, actor=ACTOR)
                done -= before == "expired"
            else:
                name = f"n{rng.randrange(10**9)}"
                desk.tokens.update(token_id, {"name": name}, actor=ACTOR)
            done += 1
        except ConflictError:
            pass
    assert len(desk.events("token.updated", "token.rotated", "token.expired")) == done
