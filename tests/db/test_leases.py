"""Leases: who may claim what, what is committed when, and that a stale worker changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from scanner.db import holding, leases
from scanner.db.clock import now_ms
from scanner.db.engine import reader
from scanner.db.leases import Claim, Patience
from scanner.db.schema import outbox
from scanner.db.work import taken
from tests.databases import on_postgresql

PATIENCE = Patience(lease_ms=60_000, max_attempts=3, max_retries=2)
HOUR = 3_600_000


def nothing_parked(_connection: Any, row: Any) -> None:
    pytest.fail(f"{row['id']} was parked")


def add(engine: Engine, row_id: str, available_at: int = 0, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(
            insert(outbox).values(
                id=row_id, kind="leak", dedupe=row_id, notice={}, created_at=0,
                **{"state": leases.PENDING, "available_at": available_at, **values},
            )
        )  # fmt: skip


def look(engine: Engine, row_id: str) -> dict[str, Any]:
    with reader(engine).connect() as connection:
        return dict(
            connection.execute(select(outbox).where(outbox.c.id == row_id)).mappings().one()
        )


def claim(engine: Engine, limit: int = 10, *, suspect: bool = False) -> list[Claim]:
    with engine.begin() as connection:
        claims, parked = leases.claim(connection, outbox, PATIENCE, limit=limit, suspect=suspect)
    assert not parked
    return claims


def expire(engine: Engine, row_id: str) -> None:
    """Let the lease end, as the passing of time would."""
    with engine.begin() as connection:
        connection.execute(update(outbox).where(outbox.c.id == row_id).values(lease_until=1))


def take(engine: Engine, limit: int = 10) -> list[str]:
    with taken(engine, outbox, PATIENCE, limit=limit, on_parked=nothing_parked) as work:
        assert bool(work.found) is bool(work.claims)
        return [claim.id for claim in work.claims]


def is_ready(engine: Engine) -> bool:
    with reader(engine).connect() as connection:
        return leases.is_ready(connection, outbox)


def test_a_batch_holds_the_oldest_first(engine: Engine) -> None:
    for place, row_id in enumerate(["c", "a", "d", "b"]):
        add(engine, row_id, available_at=place)
    assert [held.id for held in claim(engine, 3)] == ["c", "a", "d"]
    assert [held.id for held in claim(engine, 3)] == ["b"]
    assert claim(engine, 3) == []


def test_what_is_not_due_waits(engine: Engine) -> None:
    with reader(engine).connect() as connection:
        now = now_ms(connection)
    add(engine, "due", available_at=now)
    add(engine, "later", available_at=now + HOUR)
    assert is_ready(engine)
    assert take(engine) == ["due"]
    assert not is_ready(engine)
    assert take(engine) == []


@pytest.mark.parametrize("state", [leases.DONE, leases.PARKED, "partial"])
def test_what_ended_is_not_claimed(engine: Engine, state: str) -> None:
    add(engine, "ended", state=state)
    assert take(engine) == []


def test_a_claim_says_what_it_holds(engine: Engine) -> None:
    add(engine, "a", retries=4, fence=7)
    with reader(engine).connect() as connection:
        before = now_ms(connection)
    (held,) = claim(engine)
    with reader(engine).connect() as connection:
        after = now_ms(connection)
    assert (held.id, held.fence, held.attempts, held.retries) == ("a", 8, 1, 4)
    assert held.row["dedupe"] == "a"
    row = look(engine, "a")
    assert (row["state"], row["attempts"], row["fence"]) == (leases.RUNNING, 1, 8)
    assert before + PATIENCE.lease_ms <= row["lease_until"] <= after + PATIENCE.lease_ms


def test_good_standing_and_one_suspect_alone_take_turns(engine: Engine) -> None:
    for row_id in ("suspect-1", "suspect-2"):
        add(engine, row_id, attempts=1)
    for row_id in ("good-1", "good-2", "good-3"):
        add(engine, row_id, available_at=1)
    assert take(engine, limit=1) == ["good-1"]
    assert take(engine, limit=9) == ["suspect-1"]
    assert take(engine, limit=9) == ["good-2", "good-3"]
    assert take(engine, limit=9) == ["suspect-2"]
    assert not is_ready(engine)
    assert take(engine) == []


def test_attempts_are_committed_before_the_work(
    engine: Engine, connect: Callable[[], Engine]
) -> None:
    add(engine, "good")
    add(engine, "suspect", attempts=2)
    other = connect()
    for row_id, attempts in (("good", 1), ("suspect", 3)):
        with taken(engine, outbox, PATIENCE, limit=9, on_parked=nothing_parked):
            row = look(other, row_id)
            assert (row["state"], row["attempts"]) == ("running", attempts)


def test_a_lease_protects_until_it_ends(engine: Engine) -> None:
    add(engine, "a")
    (first,) = claim(engine)
    assert not is_ready(engine)
    assert take(engine) == []
    expire(engine, "a")
    assert is_ready(engine)
    assert claim(engine) == []  # never again in a batch
    (second,) = claim(engine, suspect=True)
    assert (second.attempts, second.fence) == (2, first.fence + 1)


def test_a_stale_worker_changes_nothing(engine: Engine) -> None:
    add(engine, "a")
    (stale,) = claim(engine)
    expire(engine, "a")
    (held,) = claim(engine, suspect=True)
    before = look(engine, "a")
    with engine.begin() as connection:
        assert not leases.settle(connection, outbox, stale, subject="stale")
        assert not leases.finish(connection, outbox, stale, leases.DONE, subject="stale")
        for blame in (False, True):
            released = leases.release(connection, outbox, stale, "x", PATIENCE, blame=blame)
            assert released is None
    assert not holding.renew(engine, outbox, [stale], PATIENCE)
    assert look(engine, "a") == before
    with engine.begin() as connection:
        assert leases.settle(connection, outbox, held, subject="ours")
        assert leases.finish(connection, outbox, held, leases.DONE)
    row = look(engine, "a")
    assert (row["state"], row["subject"], row["lease_until"]) == (leases.DONE, "ours", None)


def test_a_claim_that_ended_is_no_claim(engine: Engine) -> None:
    add(engine, "a")
    (held,) = claim(engine)
    with engine.begin() as connection:
        assert leases.release(connection, outbox, held, "later", PATIENCE) == leases.PENDING
    before = look(engine, "a")
    with engine.begin() as connection:
        assert not leases.settle(connection, outbox, held, subject="late")
        assert not leases.finish(connection, outbox, held, leases.DONE)
        assert leases.release(connection, outbox, held, "again", PATIENCE) is None
    assert not holding.renew(engine, outbox, [held], PATIENCE)
    assert look(engine, "a") == before


def test_an_overdue_claim_that_nobody_took_still_counts(engine: Engine) -> None:
    add(engine, "a")
    (held,) = claim(engine)
    expire(engine, "a")
    with reader(engine).connect() as connection:
        now = now_ms(connection)
    assert holding.renew(engine, outbox, [held], PATIENCE)
    assert look(engine, "a")["lease_until"] >= now + PATIENCE.lease_ms
    assert take(engine) == []
    with engine.begin() as connection:
        assert leases.finish(connection, outbox, held, leases.DONE)


@on_postgresql
def test_claimers_go_around_each_other(engine: Engine, connect: Callable[[], Engine]) -> None:
    """Nobody waits for another's claim, and what it did not get is free again."""
    names = [f"{number:02}" for number in range(6)]
    for name in names:
        add(engine, name)
    options: dict[str, Any] = {"limit": 2, "suspect": False}
    with engine.connect() as first, connect().begin() as second:
        mine, _ = leases.claim(first, outbox, PATIENCE, **options)
        second.exec_driver_sql("SET LOCAL lock_timeout = 1")  # ms: no claim waits for a lock
        other, _ = leases.claim(second, outbox, PATIENCE, **options)
        assert [held.id for held in mine] == names[:2]
        assert [held.id for held in other] == names[2:4]
        first.rollback()
    assert [held.id for held in claim(engine)] == [*names[:2], *names[4:]]


@on_postgresql
def test_a_claim_that_commits_late_is_no_claim(
    engine: Engine, connect: Callable[[], Engine]
) -> None:
    """Its lease ended before anybody could see it; another worker has the row by then."""
    add(engine, "a")
    with engine.connect() as late:
        (held,), _ = leases.claim(late, outbox, Patience(-1, 3, 2), limit=1, suspect=False)
        assert claim(connect()) == []
        late.commit()
    (other,) = claim(engine, suspect=True)
    assert (other.attempts, other.fence) == (2, held.fence + 1)
    with engine.begin() as connection:
        assert not leases.finish(connection, outbox, held, leases.DONE)
        assert leases.finish(connection, outbox, other, leases.DONE)


def test_threads_never_share_a_row(
    engine: Engine, connect: Callable[[], Engine], at_once: Callable[..., list[Any]]
) -> None:
    names = [f"{number:02}" for number in range(40)]
    for name in names:
        add(engine, name, attempts=int(name) % 4 == 0)

    def work_of(worker: Engine) -> list[str]:
        mine: list[str] = []
        while batch := take(worker, limit=3):
            mine += batch
        return mine

    engines = [connect() for _ in range(3)]
    shares = at_once(*(lambda worker=worker: work_of(worker) for worker in engines))
    assert sorted(row_id for mine in shares for row_id in mine) == names


def test_processes_never_share_a_row(
    engine: Engine, database_url: str, in_processes: Callable[..., list[str]]
) -> None:
    names = [f"{number:02}" for number in range(60)]
    for name in names:
        add(engine, name)
    program = """
import json, sys
from scanner.db import leases
from scanner.db.engine import create_database_engine
from scanner.db.schema import outbox
from scanner.db.work import taken
engine = create_database_engine(sys.argv[1])
patience = leases.Patience(60_000, 3, 3)
with engine.connect():
    pass
begin()
mine = []
while True:
    with engine.begin() as connection:
        claims, _ = leases.claim(connection, outbox, patience, limit=1, suspect=False)
    if not claims:
        break
    mine += [held.id for held in claims]
engine.dispose()
print(json.dumps(mine))
"""
    printed = in_processes(program, 2, database_url)
    assert sorted(row_id for line in printed for row_id in json.loads(line)) == names
