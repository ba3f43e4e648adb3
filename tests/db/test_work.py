"""Taking work: lanes, leases that are kept alive, and what is handed back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, select, text, update

from scanner.db import holding, leases, scans
from scanner.db.clock import now_ms
from scanner.db.engine import reader
from scanner.db.lanes import Lane
from scanner.db.leases import Patience
from scanner.db.schema import new_id
from scanner.db.schema import scans as scans_table
from scanner.db.watches import add_watch
from scanner.db.work import Found, taken

PATIENCE = Patience(lease_ms=60_000, max_attempts=3, max_retries=2)
SHORT = Patience(lease_ms=300, max_attempts=3, max_retries=2)


@pytest.fixture
def add(engine: Engine, add_scan: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    """Add a scan to a lane; returns its id."""

    def run(lane: Lane, **values: Any) -> str:
        with engine.begin() as connection:
            row = add_scan(connection, body=new_id())
            connection.execute(
                update(scans_table)
                .where(scans_table.c.id == row["id"])
                .values(priority=lane, **values)
            )
        return str(row["id"])

    return run


def nothing_parked(_connection: Any, row: Any) -> None:
    pytest.fail(f"{row['id']} was parked")


def take(engine: Engine, lane: Lane = Lane.HISTORY, limit: int = 64) -> list[str]:
    with taken(
        engine, scans_table, PATIENCE, limit=limit, on_parked=nothing_parked, lanes=range(lane + 1)
    ) as work:
        return [claim.id for claim in work.claims]


def state_of(engine: Engine, row_id: str) -> tuple[str, int, int]:
    with reader(engine).connect() as connection:
        row = connection.execute(select(scans_table).where(scans_table.c.id == row_id)).one()
    return row.state, row.attempts, row.retries


def test_pushes_and_watches_have_lanes_of_their_own(
    engine: Engine, add_scan: Callable[..., dict[str, Any]]
) -> None:
    with engine.begin() as connection:
        push = add_scan(connection)
        add_watch(connection, "https://github.example", "acme/app", 60, "test")
        assert scans.accept_due_watches(connection) == 1
        lanes = dict(connection.execute(select(scans_table.c.id, scans_table.c.priority)).all())
    assert lanes.pop(push["id"]) == Lane.WEBHOOKS
    assert list(lanes.values()) == [Lane.HISTORY]


def test_the_urgent_comes_first_and_fills_the_batch(engine: Engine, add: Any) -> None:
    history, feed, push, report = (add(lane, available_at=5 - lane) for lane in reversed(Lane))
    later = add(Lane.WEBHOOKS, available_at=9)
    assert take(engine, limit=3) == [report, push, later]
    assert take(engine) == [feed, history]


def test_who_works_on_a_lane_takes_nothing_less_urgent(engine: Engine, add: Any) -> None:
    for lane in Lane:
        add(lane)
        add(lane, attempts=1)  # a suspect
    seen = {lane: [*take(engine, lane), *take(engine, lane)] for lane in Lane}
    assert [len(ids) for ids in seen.values()] == [2, 2, 2, 2]
    assert take(engine) == []


def test_each_lane_says_whether_it_has_work(engine: Engine, add: Any) -> None:
    add(Lane.FEED)
    add(Lane.HISTORY, state=leases.RUNNING, attempts=1, lease_until=1)
    with reader(engine).connect() as connection:
        ready = [lane for lane in Lane if leases.is_ready(connection, scans_table, lane)]
    assert ready == [Lane.FEED, Lane.HISTORY]


def test_a_running_row_without_an_attempt_is_found_too(engine: Engine, add: Any) -> None:
    row = add(Lane.FEED, state=leases.RUNNING, attempts=0, lease_until=1)
    assert take(engine) == [row]


def test_what_is_handed_back_is_as_it_was(engine: Engine, add: Any) -> None:
    good, suspect = add(Lane.FEED), add(Lane.FEED, attempts=2, retries=1)
    for row_id, before in ((good, ("pending", 0, 0)), (suspect, ("pending", 2, 1))):
        with (
            taken(engine, scans_table, PATIENCE, limit=9, on_parked=nothing_parked) as work,
            engine.begin() as connection,
        ):
            (held,) = work.claims
            assert held.id == row_id
            assert leases.hand_back(connection, scans_table, held)
            assert not leases.hand_back(connection, scans_table, held)
        assert state_of(engine, row_id) == before
    assert {*take(engine), *take(engine)} == {good, suspect}


class Clocked:
    """Sees each renewal: the database tells who changes a lease."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.leases = engine, set[int]()

    def look(self, row_id: str) -> int:
        with reader(self.engine).connect() as connection:
            row = connection.execute(select(scans_table).where(scans_table.c.id == row_id)).one()
            assert row.state == leases.RUNNING
            assert row.lease_until >= now_ms(connection)
        self.leases.add(row.lease_until)
        return len(self.leases)


def until(look: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2_000):
        if look():
            return
        pause.wait(0.01)  # another thread's commits cannot be waited for
    pytest.fail("waited in vain")


def test_a_lease_is_kept_alive_while_the_work_goes_on(
    engine: Engine, connect: Callable[[], Engine], add: Any
) -> None:
    row, ended = add(Lane.FEED), add(Lane.FEED)
    seen = Clocked(connect())
    with taken(engine, scans_table, SHORT, limit=9, on_parked=nothing_parked) as work:
        claims = {claim.id: claim for claim in work.claims}
        with engine.begin() as connection:
            leases.finish(connection, scans_table, claims[ended], leases.DONE)
        until(lambda: seen.look(row) > 4)  # longer than a lease
        assert not ready(connect())
    assert state_of(engine, ended)[0] == leases.DONE
    until(lambda: ready(seen.engine))  # the work ended without a word: nobody renews it


def ready(engine: Engine) -> bool:
    with reader(engine).connect() as connection:
        return leases.is_ready(connection, scans_table)


def test_a_claim_that_was_lost_is_not_renewed(
    engine: Engine, connect: Callable[[], Engine], add: Any
) -> None:
    row, other = add(Lane.FEED), connect()
    with taken(engine, scans_table, SHORT, limit=9, on_parked=nothing_parked) as work:
        with other.begin() as connection:  # as if we had been paused
            connection.execute(update(scans_table).values(lease_until=1))
            ((mine,), _) = leases.claim(connection, scans_table, PATIENCE, limit=1, suspect=True)
        with reader(other).connect() as connection:
            lease = connection.execute(select(scans_table.c.lease_until)).scalar_one()
        assert holding.renew(engine, scans_table, work.claims, SHORT) == 0
        threading.Event().wait(SHORT.lease_ms / 1000)  # three rounds of the keeper
        with reader(other).connect() as connection:
            assert connection.execute(select(scans_table.c.lease_until)).scalar_one() == lease
    assert mine.id == row


def test_leases_outlive_a_database_that_is_away_for_a_moment(
    engine: Engine, connect: Callable[[], Engine], add: Any, caplog: pytest.LogCaptureFixture
) -> None:
    row = add(Lane.FEED)
    seen = Clocked(connect())
    with taken(engine, scans_table, SHORT, limit=9, on_parked=nothing_parked):
        with seen.engine.begin() as connection:
            connection.execute(text("ALTER TABLE scans RENAME TO elsewhere"))
        until(lambda: "were not renewed" in caplog.text)
        with seen.engine.begin() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO scans"))
            connection.execute(update(scans_table).values(lease_until=2**60))
        until(lambda: seen.look(row) > 2)


def test_what_was_found_says_whether_more_may_wait(engine: Engine, add: Any) -> None:
    def found() -> Found:
        with taken(engine, scans_table, PATIENCE, limit=2, on_parked=nothing_parked) as work:
            with engine.begin() as connection:
                for claim in work.claims:
                    leases.finish(connection, scans_table, claim, leases.DONE)
            return work.found

    assert found() is Found.NOTHING
    for _ in range(3):
        add(Lane.FEED)
    assert (found(), found(), found()) == (Found.SOME, Found.ALL, Found.NOTHING)
    add(Lane.FEED, attempts=1)  # who comes alone may have others behind him
    assert found() is Found.SOME
