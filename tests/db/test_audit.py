"""The audit trail: numbered and chained once each, and whatever is done to it afterwards shows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.exc import IntegrityError

from scanner.db import audit
from scanner.db.dialect import POSTGRESQL
from scanner.db.engine import reader
from scanner.db.schema import audit_events, audit_queue, audit_seals
from scanner.model import AuditAction


def write(engine: Engine, count: int, actor: str = "ada") -> None:
    with engine.begin() as connection:
        for number in range(count):
            audit.record(connection, AuditAction.LEAK_FOUND, actor=actor, number=number)


def write_many(engine: Engine, count: int) -> None:
    """As `write`, without a statement for each."""
    with engine.begin() as connection:
        connection.execute(
            insert(audit_events),
            [
                {"id": f"{n:024}", "at": n, "action": "leak.found", "actor": "x", "data": {}}
                for n in range(count)
            ],
        )


def seal(engine: Engine) -> int:
    with engine.begin() as connection:
        return audit.seal(connection)


def verify(engine: Engine) -> audit.Verification:
    with reader(engine).connect() as connection:
        return audit.verify(connection)


def seals(engine: Engine) -> list[Any]:
    with reader(engine).connect() as connection:
        return list(connection.execute(select(audit_seals).order_by(audit_seals.c.sequence)))


def numbers(engine: Engine) -> list[int]:
    """What the sealed events say, in the order of their seals."""
    with reader(engine).connect() as connection:
        data = connection.execute(
            select(audit_events.c.data)
            .join(audit_seals, audit_seals.c.event_id == audit_events.c.id)
            .order_by(audit_seals.c.sequence)
        ).scalars()
        return [entry["number"] for entry in data]


def tidy(engine: Engine) -> None:
    """Do what PostgreSQL's autovacuum does within a minute: the planner knows what there is."""
    if engine.dialect.name == POSTGRESQL:
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("VACUUM ANALYZE"))


def rows_read(connection: Connection) -> int:
    """How many rows PostgreSQL has read for this connection lately."""
    read = text(
        "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
    )
    return int(connection.execute(read).scalar_one())


def effort(engine: Engine) -> int:
    """Seal once, undone; returns how many rows PostgreSQL read, or how many instructions SQLite
    ran (in hundreds)."""
    ran = 0

    def count() -> None:
        nonlocal ran
        ran += 1

    with engine.connect() as connection:
        connection.begin()
        database = connection.connection.driver_connection
        if isinstance(database, sqlite3.Connection):
            database.set_progress_handler(count, 100)
            assert audit.seal(connection) == 1
            database.set_progress_handler(None, 0)
        else:
            ran -= rows_read(connection)
            assert audit.seal(connection) == 1
            ran += rows_read(connection)
        connection.rollback()
    return ran


def test_an_empty_trail_is_whole(engine: Engine) -> None:
    assert seal(engine) == 0
    assert verify(engine) == audit.Verification(0, 0, audit.GENESIS, ())


def test_seals_are_numbered_and_chained(engine: Engine) -> None:
    write(engine, 3)
    assert verify(engine) == audit.Verification(0, 3, audit.GENESIS, ())
    assert seal(engine) == 3
    write(engine, 2)
    assert seal(engine) == 2
    assert seal(engine) == 0
    rows = seals(engine)
    assert [row.sequence for row in rows] == [1, 2, 3, 4, 5]
    assert [row.previous_hash for row in rows] == [audit.GENESIS, *(row.hash for row in rows[:-1])]
    assert len({row.hash for row in rows}) == 5
    assert verify(engine) == audit.Verification(5, 0, rows[-1].hash, ())


def test_the_unsealed_tail_is_reported(engine: Engine) -> None:
    write(engine, 2)
    seal(engine)
    write(engine, 3)
    found = verify(engine)
    assert (found.sealed, found.unsealed, found.problems) == (2, 3, ())


def test_events_are_sealed_as_they_were_written(engine: Engine) -> None:
    write(engine, 30)  # many in one millisecond
    seal(engine)
    assert numbers(engine) == list(range(30))


def test_an_event_that_commits_with_an_older_time_is_not_skipped(engine: Engine) -> None:
    write(engine, 1)
    seal(engine)
    with engine.begin() as connection:  # a clock that was set back, or a slow transaction
        audit.record(connection, AuditAction.LEAK_FOUND, number=-1)
    with engine.begin() as connection:
        connection.execute(
            insert(audit_events).values(
                id="old", at=5, action="leak.found", actor="x", data={"number": -2}
            )
        )
    assert seal(engine) == 2
    assert numbers(engine) == [0, -1, -2]


def test_events_vanish_with_their_transaction(engine: Engine) -> None:
    def fail() -> None:
        with engine.begin() as connection:
            audit.record(connection, AuditAction.LEAK_FOUND, number=1)
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        fail()
    assert seal(engine) == 0
    with reader(engine).connect() as connection:
        assert connection.execute(select(audit_events)).all() == []
        assert connection.execute(select(audit_queue)).all() == []


def test_a_sealer_that_fails_leaves_everything_to_the_next(engine: Engine) -> None:
    write(engine, 2)
    with engine.connect() as connection:
        assert audit.seal(connection) == 2
        connection.rollback()
    assert verify(engine).unsealed == 2
    assert seal(engine) == 2
    assert numbers(engine) == [0, 1]


def test_more_than_a_batch(engine: Engine) -> None:
    write_many(engine, 2_345)
    counts = []
    while count := seal(engine):
        counts.append(count)
    assert counts == [1_000, 1_000, 345]
    assert [row.sequence for row in seals(engine)] == list(range(1, 2_346))
    found = verify(engine)
    assert (found.sealed, found.unsealed, found.problems) == (2_345, 0, ())


def test_two_sealers_at_once(
    engine: Engine, connect: Callable[[], Engine], at_once: Callable[..., list[Any]]
) -> None:
    write_many(engine, 2_500)

    def work_of(sealer: Engine) -> int:
        done = 0
        while count := seal(sealer):
            done += count
        return done

    engines = [connect() for _ in range(2)]
    sealed = at_once(*(lambda sealer=sealer: work_of(sealer) for sealer in engines))
    assert sum(sealed) == 2_500
    found = verify(engine)
    assert (found.sealed, found.unsealed, found.problems) == (2_500, 0, ())


def test_a_sealer_with_an_old_view_is_refused(
    engine: Engine, connect: Callable[[], Engine]
) -> None:
    """Where transactions do not queue at BEGIN, a number goes to one seal, a seal to one event."""
    write(engine, 1)
    seal(engine)
    (row,) = seals(engine)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(insert(audit_seals).values(**{**row._mapping, "event_id": "other"}))
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(insert(audit_seals).values(**{**row._mapping, "sequence": 2}))


def test_sealing_costs_the_same_however_long_the_trail_is(engine: Engine) -> None:
    write(engine, 1)
    tidy(engine)
    alone = effort(engine)
    write_many(engine, 5_000)
    while seal(engine):
        pass
    write(engine, 1)
    tidy(engine)
    assert effort(engine) <= alone + 2


def test_within_a_millisecond_events_are_listed_as_they_were_written(engine: Engine) -> None:
    with engine.begin() as connection:
        for number, event_id in enumerate("cafebd"):
            if number == 3:
                audit.seal(connection)
            connection.execute(
                insert(audit_events).values(
                    id=event_id, at=7, action="leak.found", actor="x", data={}
                )
            )
        listed = audit.list_events(connection)
    assert "".join(row["id"] for row in listed) == "cafebd"
    assert [row["sequence"] for row in listed] == [1, 2, 3, None, None, None]


def test_the_newest_events_come_oldest_first(engine: Engine) -> None:
    write(engine, 5)
    seal(engine)
    with engine.begin() as connection:
        audit.record(connection, AuditAction.TOKEN_REVOKED, incident_id="i-1", number=5)
        audit.record(connection, AuditAction.NOTICE_DELIVERED, incident_id="i-1", number=6)
    with reader(engine).connect() as connection:
        rows = audit.list_events(connection, limit=4)
        assert [row["data"]["number"] for row in rows] == [3, 4, 5, 6]
        assert [row["sequence"] for row in rows] == [4, 5, None, None]
        assert all(row["at"].endswith("Z") for row in rows)
        ours = audit.list_events(connection, incident_id="i-1")
    assert [row["action"] for row in ours] == ["token.revoked", "notice.delivered"]
