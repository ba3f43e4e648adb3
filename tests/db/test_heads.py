"""Heads are forgotten only where no fetch would say `have` for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, delete, func, insert, select, text

from scanner.db.clock import now_ms
from scanner.db.engine import create_database_engine, reader
from scanner.db.heads import prune_heads
from scanner.db.scans import HAVES, known_repositories
from scanner.db.schema import UNFINISHED, heartbeats, repositories, scanned_heads, scans
from scanner.deadline import Deadline

YEAR_MS = 366 * 86_400_000
MANY = 2_500  # more than are deleted at once


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_database_engine(database_url)
    with engine.begin() as connection:
        now = now_ms(connection)
        for name in ("busy", "quiet"):
            values = {"id": name, "host": "https://h", "name": f"acme/{name}", "created_at": now}
            connection.execute(insert(repositories).values(values))
        rows = [("busy", "r", f"{n:040x}", now + n) for n in range(MANY)]
        rows += [("quiet", "r", "a" * 40, now), ("quiet", "of-last-year", "a" * 40, now - YEAR_MS)]
        names = ("repository_id", "ruleset", "object_id", "scanned_at")
        connection.execute(
            insert(scanned_heads), [dict(zip(names, row, strict=True)) for row in rows]
        )
    yield engine
    engine.dispose()


def count(engine: Engine) -> int:
    with reader(engine).connect() as connection:
        return connection.execute(select(func.count()).select_from(scanned_heads)).scalar_one()


def test_what_would_be_said_is_kept(engine: Engine) -> None:
    with reader(engine).connect() as connection:
        before = known_repositories(connection, {"busy", "quiet"}, "r")
    assert prune_heads(engine, Deadline()) == MANY - HAVES + 1
    assert count(engine) == HAVES + 1
    with reader(engine).connect() as connection:
        assert known_repositories(connection, {"busy", "quiet"}, "r") == before
    assert prune_heads(engine, Deadline()) == 0


def test_once_an_hour_and_only_as_long_as_there_is_time(engine: Engine) -> None:
    assert prune_heads(engine, Deadline(0)) == 0
    assert prune_heads(engine, Deadline()) == 0  # it was this hour's
    with engine.begin() as connection:
        connection.execute(delete(heartbeats))
    assert prune_heads(engine, Deadline()) > 0


def test_a_watch_s_unfinished_scans_are_found_without_its_finished_ones(engine: Engine) -> None:
    """The plan, on either database, goes by the index of those alone."""
    query = select(scans.c.id).where(scans.c.watch_id == "w", text(UNFINISHED))
    asked = str(query.compile(compile_kwargs={"literal_binds": True}))
    is_postgresql = engine.dialect.name == "postgresql"
    explain = "EXPLAIN" if is_postgresql else "EXPLAIN QUERY PLAN"
    with engine.begin() as connection:
        if is_postgresql:
            connection.execute(text("SET LOCAL enable_seqscan = off"))  # so few rows need no index
        plan = connection.exec_driver_sql(f"{explain} {asked}")
        assert "scans_of_watch" in str(plan.all())
