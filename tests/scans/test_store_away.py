"""A store that stays away, or frozen, while tokens wait: the operator hears of it in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from scanner.db import alarms, freezes
from scanner.db.engine import reader
from scanner.db.schema import alarm_turns, outbox, sealed_candidates
from scanner.model import Secret
from tests.scans.world import ZEROS, World

MINUTE, HOUR = 60_000, 3_600_000


class Case:
    """Tokens that leak, a clock that can be moved, and what the operator was told."""

    def __init__(self, world: World, repository: Any, ours: Callable[[], str]) -> None:
        self.world = world
        self._repository, self._ours = repository, ours

    def leak(self) -> Secret:
        token = self._ours()
        head = self._repository.commit({f"{token[:8]}.ini": token})
        self._repository.push()
        self.world.push("acme/app", ZEROS, head)
        assert self.world.scanner.run_batch()
        return Secret(token.encode())

    def clock(self, ms: int) -> None:
        """So much time passes."""
        with self.world.engine.begin() as connection:
            for table, names in (
                (sealed_candidates, ("sealed_at", "available_at")), (alarm_turns, ("due_at",)),
            ):  # fmt: skip
                moved = {name: table.c[name] - ms for name in names}
                connection.execute(update(table).values(**moved))

    def recheck(self) -> None:
        while self.world.rechecker.run_batch():
            pass

    def told(self, topic: str = "store-away") -> list[Any]:
        rows = [row for row in self.world.rows(outbox) if row["notice"].get("topic") == topic]
        return sorted(rows, key=lambda row: row["available_at"])

    def freeze(self) -> None:
        with self.world.engine.begin() as connection:
            freezes.freeze(connection, self.world.store.name, "it lies")

    def away(self) -> None:
        self.world.store.is_available = False

    def back(self) -> None:
        self.world.store.is_available = True
        with self.world.engine.begin() as connection:
            freezes.release(connection, self.world.store.name, "admin")


@pytest.fixture
def case(world: World, repository, ours) -> Case:
    return Case(world, repository, ours)


@pytest.mark.parametrize(("fault", "state"), [("away", "gives no answer"), ("freeze", "is frozen")])
def test_a_store_that_is_away_for_twenty_minutes_is_told(
    case: Case, fault: str, state: str
) -> None:
    getattr(case, fault)()
    for _ in range(3):
        case.leak()
    case.recheck()
    case.clock(14 * MINUTE)
    case.recheck()
    assert case.told() == []
    case.clock(6 * MINUTE)
    case.recheck()
    (mail,) = case.told()
    assert f"The token store memory {state};" in mail["notice"]["context"]["explanation"]
    with reader(case.world.engine).connect() as connection:
        shown = alarms.as_of_now(connection, mail["notice"], mail["notice"]["context"])
    assert shown["title"] == "3 leaked tokens wait for their proof, and the store is away"
    assert "patrol doctor" in shown["what_to_do"]
    case.back()
    case.clock(MINUTE)
    case.recheck()
    with reader(case.world.engine).connect() as connection:
        shown = alarms.as_of_now(connection, mail["notice"], mail["notice"]["context"])
    assert "gone on by itself" in shown["explanation"]


def test_while_it_lasts_there_is_a_reminder_once_a_day(case: Case) -> None:
    case.away()
    case.leak()
    for _ in range(25):
        case.clock(HOUR)
        case.recheck()
    assert len(case.told()) == 2


def test_another_time_away_is_told_anew(case: Case) -> None:
    case.away()
    case.leak()
    case.clock(20 * MINUTE)
    case.recheck()
    case.back()
    case.clock(MINUTE)
    case.recheck()
    case.clock(3 * HOUR)
    case.away()
    case.leak()
    case.clock(20 * MINUTE)
    case.recheck()
    assert len(case.told()) == 2


def test_a_token_without_an_answer_of_its_own_is_told_as_such(case: Case) -> None:
    """And keeps nobody from hearing that the store is away later."""
    case.away()
    odd = case.leak()
    case.back()
    case.world.store.poison = {odd}
    case.recheck()
    assert case.told("unreadable") == []
    case.clock(20 * MINUTE)
    case.recheck()
    assert len(case.told("unreadable")) == 1
    assert case.told() == []
    case.clock(2 * HOUR)
    case.away()
    case.leak()
    case.clock(20 * MINUTE)
    case.recheck()
    assert len(case.told()) == 1
    assert len(case.told("unreadable")) == 1


def test_what_a_store_does_not_know_yet_is_no_reason(case: Case) -> None:
    """It was asked, and answered; that it is away now for a moment is no news."""
    case.away()
    case.leak()
    with case.world.engine.begin() as connection:
        connection.execute(update(sealed_candidates).values(cause="unconfirmed"))
    case.clock(20 * MINUTE)
    case.recheck()
    assert case.told() == []
