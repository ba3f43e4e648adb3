"""The ledger's rows grow old, are renewed and pruned; a database that is away knows nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import OperationalError

from scanner.db.engine import create_database_engine
from scanner.db.ledger import DatabaseLedger
from scanner.db.schema import blob_ledger

RULESET = "1" * 64
DAY_MS = 86_400_000
A, B = "a" * 40, "b" * 40


def ids(count: int) -> list[str]:
    return [f"{number:040x}" for number in range(count)]


def ledger_of(engine: Engine, *, keep_ms: int = DAY_MS, most_rows: int = 100) -> DatabaseLedger:
    return DatabaseLedger(engine, keep_ms=keep_ms, most_rows=most_rows)


def remember(engine: Engine, *object_ids: str) -> None:
    with engine.begin() as connection:
        ledger_of(engine).remember(connection, RULESET, object_ids)


def grow_older(engine: Engine, milliseconds: int, *object_ids: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            update(blob_ledger)
            .where(blob_ledger.c.object_id.in_(object_ids))
            .values(scanned_at=blob_ledger.c.scanned_at - milliseconds)
        )


def rows(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        found = connection.execute(select(blob_ledger.c.object_id, blob_ledger.c.scanned_at))
        return {row.object_id: row.scanned_at for row in found}


def test_an_entry_counts_for_a_time(engine: Engine) -> None:
    remember(engine, A, B)
    grow_older(engine, DAY_MS - 60_000, A)
    assert ledger_of(engine).known(RULESET, [A, B]) == {A, B}
    grow_older(engine, 60_000, A)
    assert ledger_of(engine).known(RULESET, [A, B]) == {B}


def test_matching_a_file_again_renews_its_entry(engine: Engine) -> None:
    remember(engine, A, B)
    young = rows(engine)
    grow_older(engine, DAY_MS // 2, A)
    grow_older(engine, 60_000, B)
    remember(engine, A, B)
    assert rows(engine)[A] >= young[A]
    # What is young is left alone: each row that is written has to be vacuumed.
    assert rows(engine)[B] == young[B] - 60_000


def test_what_is_too_old_is_pruned(engine: Engine) -> None:
    remember(engine, *ids(50))
    grow_older(engine, DAY_MS, *ids(20))
    assert ledger_of(engine).prune() == 20
    assert set(rows(engine)) == set(ids(50)[20:])
    assert ledger_of(engine).prune() == 0


def test_the_oldest_beyond_the_bound_are_pruned(engine: Engine) -> None:
    for number, object_id in enumerate(ids(30)):
        remember(engine, object_id)
        grow_older(engine, 1_000 * (30 - number), object_id)
    assert ledger_of(engine, most_rows=12).prune() == 18
    assert set(rows(engine)) == set(ids(30)[18:])


@pytest.mark.parametrize("most_rows", [1, 999])
def test_a_bound_holds_for_what_came_at_once(engine: Engine, most_rows: int) -> None:
    remember(engine, *ids(1_000))
    ledger_of(engine, most_rows=most_rows).prune()
    assert len(rows(engine)) <= most_rows


def test_very_many_are_pruned_in_pieces(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            insert(blob_ledger),
            [{"ruleset": RULESET, "object_id": one, "scanned_at": 1} for one in ids(12_000)],
        )
    remember(engine, A)
    assert ledger_of(engine).prune() == 12_000
    assert set(rows(engine)) == {A}


def test_it_is_pruned_as_it_grows(engine: Engine) -> None:
    """On average once in two thousand entries: nobody has to remember to do it."""
    remember(engine, A)
    grow_older(engine, DAY_MS, A)
    ledger = ledger_of(engine)
    ledger.publish(RULESET, [])
    assert set(rows(engine)) == {A}
    ledger.publish(RULESET, ids(2_000))
    assert rows(engine) == {}


def test_a_database_that_is_away_knows_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "nothing").mkdir()
    away = ledger_of(create_database_engine(f"sqlite:///{tmp_path / 'nothing'}"))
    assert away.known(RULESET, [A]) == set()
    away.publish(RULESET, ids(2_000))
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "the blob ledger cannot be read: OperationalError",
        "the blob ledger cannot be pruned: OperationalError",
    ]
    with pytest.raises(OperationalError):
        away.distrust(A)  # that must not be lost: the scan begins anew


def test_pruning_waits_for_nobody_who_renews(engine: Engine, connect: Callable[[], Engine]) -> None:
    remember(engine, A, B)
    grow_older(engine, DAY_MS, A, B)
    if engine.dialect.name == "sqlite":  # it has one writer at a time
        assert ledger_of(engine).prune() == 2
        return
    with engine.begin() as connection:
        ledger_of(engine).remember(connection, RULESET, [A])
        assert ledger_of(connect()).prune() == 1
    assert set(rows(engine)) == {A}
