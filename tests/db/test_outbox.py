"""The outbox: one notice a cause, written with the step that causes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, select

from scanner.db import outbox
from scanner.db.clock import now_ms
from scanner.db.engine import reader
from scanner.db.schema import outbox as table


def enqueue(engine: Engine, dedupe: str = "leak:1", **notice: Any) -> bool:
    with engine.begin() as connection:
        return outbox.enqueue(connection, kind="leak", dedupe=dedupe, notice=notice)


def rows(engine: Engine) -> list[Any]:
    with reader(engine).connect() as connection:
        return list(connection.execute(select(table)))


def test_a_notice_waits_to_be_sent_at_once(engine: Engine) -> None:
    assert enqueue(engine, to="ada@acme.example", context={"mask": "…a1B2"})
    (row,) = rows(engine)
    assert row.notice == {"to": "ada@acme.example", "context": {"mask": "…a1B2"}}
    assert (row.kind, row.state, row.attempts, row.retries, row.fence) == (
        "leak",
        "pending",
        0,
        0,
        0,
    )
    assert (row.incident_id, row.sent_at, row.subject, row.error) == (None, None, None, None)
    with reader(engine).connect() as connection:
        assert row.created_at == row.available_at <= now_ms(connection)


def test_one_cause_is_one_notice(engine: Engine) -> None:
    assert enqueue(engine, number=1)
    assert not enqueue(engine, number=2)
    assert enqueue(engine, "leak:2", number=3)
    assert sorted(row.notice["number"] for row in rows(engine)) == [1, 3]


def test_causes_at_once_are_one_notice(
    engine: Engine, connect: Callable[[], Engine], at_once: Callable[..., list[Any]]
) -> None:
    engines = [connect() for _ in range(4)]
    added = at_once(*(lambda worker=worker: enqueue(worker) for worker in engines))
    assert sorted(added) == [False, False, False, True]
    assert len(rows(engine)) == 1


def test_a_notice_vanishes_with_its_step(engine: Engine) -> None:
    with engine.connect() as connection:
        assert outbox.enqueue(connection, kind="leak", dedupe="leak:1", notice={})
        connection.rollback()
    assert rows(engine) == []
    assert enqueue(engine)
