"""PostgreSQL, and a worker that hangs within a transaction: others do not wait for it for long."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, func, insert, select
from sqlalchemy.exc import DBAPIError

from scanner.db import audit
from scanner.db.engine import create_database_engine
from scanner.db.schema import audit_seals, store_freezes
from scanner.model import AuditAction
from tests.databases import on_postgresql

pytestmark = on_postgresql


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_database_engine(database_url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("rows", [1, 3])
def test_a_silent_client_loses_its_transaction_and_its_locks(engine: Engine, rows: int) -> None:
    """Whatever it said last: several rows at once are sent in another way."""
    values = [{"store": f"s-{number}", "since": 0, "reason": "x"} for number in range(rows)]
    with engine.connect() as silent:
        silent.exec_driver_sql("SET idle_in_transaction_session_timeout = '100ms'")
        silent.execute(insert(store_freezes), values)
        with engine.begin() as other:  # waits for the other's row
            other.execute(insert(store_freezes), values[:1])
        with pytest.raises(DBAPIError):
            silent.commit()
    with engine.connect() as connection:
        kept = connection.execute(select(func.count()).select_from(store_freezes)).scalar_one()
    assert kept == 1


def test_nobody_waits_for_a_sealer_that_hangs(engine: Engine) -> None:
    with engine.begin() as connection:
        audit.record(connection, AuditAction.STORE_FROZEN)
    with engine.begin() as hanging:
        assert audit.seal(hanging) == 1
        began = time.monotonic()
        with engine.begin() as other:
            assert audit.seal(other) == 0
        assert time.monotonic() - began < 5
    with engine.begin() as connection:
        assert audit.seal(connection) == 0
        assert connection.execute(select(func.count()).select_from(audit_seals)).scalar_one() == 1
