"""Incidents that come together: they share commits, and neither faults, nor freezes, nor kills."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import update

from scanner.db import freezes
from scanner.db.schema import incidents
from scanner.model import Secret, Validity
from tests.reliability.points import Points, watch_commits
from tests.respond.test_faults import Act, Around, Killed

COUNT = 5
EACH = {"leak.found", "revocation.decided", "token.revoked"}


@pytest.fixture
def leaks(desk) -> list[tuple[Secret, str, str]]:
    """Leaked tokens: (secret, token's id, incident's id)."""
    issued = [desk.issue() for _ in range(COUNT)]
    return [(secret, token_id, desk.leak(secret)) for secret, token_id in issued]


def by_id(desk) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in desk.rows(incidents)}


def validities(desk, leaks: list[tuple[Secret, str, str]]) -> list[Validity]:
    return [lookup.validity for lookup in desk.store.find([secret for secret, *_ in leaks])]


def test_they_share_the_commits_around_the_acts(desk, leaks) -> None:
    points, order = Points(None, None, lambda: None), []
    watch_commits(desk.engine, points)

    def around(token_id: str, act: Act) -> bool:
        states = {(row["phase"], row["state"]) for row in desk.rows(incidents)}
        order.append((token_id, states))
        return act()

    assert desk.respond(Around(desk.store, around))
    assert sorted(token_id for token_id, _ in order) == sorted(token_id for _, token_id, _ in leaks)
    # Every intent is durable before the first act, and no record keeps an act waiting.
    assert all(states == {("revoking", "running")} for _, states in order)
    commits = [label for label in points.passed if label.startswith("before commit")]
    assert len(commits) == 3  # claims, intents, records
    assert Counter(desk.actions()) == dict.fromkeys(EACH, COUNT)
    assert validities(desk, leaks) == [Validity.REVOKED] * COUNT
    assert {row["phase"] for row in by_id(desk).values()} == {"revoked"}
    assert len(desk.notices()) == COUNT


def test_one_that_cannot_be_decided_spoils_no_other(desk, leaks, caplog) -> None:
    bad = leaks[2][2]
    with desk.engine.begin() as connection:
        nonsense = update(incidents).where(incidents.c.id == bad).values(validity="nonsense")
        connection.execute(nonsense)
    assert desk.respond()
    rows = by_id(desk)
    spoilt = rows.pop(bad)
    assert (spoilt["phase"], spoilt["state"]) == ("open", "pending")
    assert spoilt["error"].startswith("ValueError at ")
    assert {row["phase"] for row in rows.values()} == {"revoked"}
    assert f"{COUNT} intents were not taken together" in caplog.text
    assert Counter(desk.actions()) == {
        "leak.found": COUNT, "revocation.decided": COUNT - 1, "token.revoked": COUNT - 1,
    }  # fmt: skip


def test_one_that_cannot_be_recorded_spoils_no_other(desk, leaks, caplog) -> None:
    bad = leaks[2][2]
    with desk.engine.begin() as connection:
        connection.execute(update(incidents).where(incidents.c.id == bad).values(token={}))
    assert desk.respond()
    rows = by_id(desk)
    spoilt = rows.pop(bad)
    assert (spoilt["phase"], spoilt["state"]) == ("revoking", "pending")
    assert spoilt["error"].startswith("KeyError at ")
    assert {row["phase"] for row in rows.values()} == {"revoked"}
    assert f"{COUNT} outcomes were not taken together" in caplog.text
    assert validities(desk, leaks) == [Validity.REVOKED] * COUNT
    assert Counter(desk.actions())["token.revoked"] == COUNT - 1


def test_one_that_another_took_is_left_to_him(desk, leaks) -> None:
    lost: list[str] = []

    def around(token_id: str, act: Act) -> bool:
        if not lost:  # while the first is revoked, the last is taken
            (row,) = (row for row in desk.rows(incidents) if row["token_id"] == leaks[-1][1])
            lost.append(row["id"])
            with desk.engine.begin() as connection:
                this = incidents.c.id == row["id"]
                connection.execute(update(incidents).where(this).values(fence=9))
        return act()

    assert desk.respond(Around(desk.store, around))
    rows = by_id(desk)
    theirs = rows.pop(lost[0])
    assert (theirs["phase"], theirs["state"], theirs["fence"]) == ("revoking", "running", 9)
    assert {row["phase"] for row in rows.values()} == {"revoked"}
    assert Counter(desk.actions())["token.revoked"] == COUNT - 1
    desk.let_time_pass()
    assert desk.respond()
    assert by_id(desk)[lost[0]]["phase"] == "revoked"
    assert Counter(desk.actions()) == dict.fromkeys(EACH, COUNT)


def test_a_store_that_is_frozen_meanwhile_is_left_alone(desk, leaks) -> None:
    acted: list[str] = []

    def around(token_id: str, act: Act) -> bool:
        acted.append(token_id)
        with desk.engine.begin() as connection:
            freezes.freeze(connection, desk.store.name, "it lies")
        threading.Event().wait(0.3)  # a store that takes its time
        return act()

    assert desk.respond(Around(desk.store, around))
    assert len(acted) == 1
    rows = {row["token_id"]: row for row in by_id(desk).values()}
    assert rows.pop(acted[0])["phase"] == "revoked"  # and was recorded before the others waited
    assert {(row["phase"], row["state"], row["error"]) for row in rows.values()} == {
        ("revoking", "pending", "the store is frozen")
    }


def test_killed_between_two_acts(desk, leaks) -> None:
    acted: list[str] = []

    def around(token_id: str, act: Act) -> bool:
        if len(acted) == 2:
            raise Killed
        acted.append(token_id)
        return act()

    with pytest.raises(Killed):
        desk.respond(Around(desk.store, around))
    assert Counter(desk.actions()) == {"leak.found": COUNT, "revocation.decided": COUNT}
    assert sorted(validities(desk, leaks)).count(Validity.REVOKED) == 2
    desk.let_time_pass()
    while desk.respond():  # each alone: one of them may be what kills
        pass
    assert {row["phase"] for row in by_id(desk).values()} == {"revoked"}
    assert Counter(desk.actions()) == dict.fromkeys(EACH, COUNT)
    assert len(desk.notices()) == COUNT
