"""Leases against a model: whatever workers do, come back late or never, rows say what the model
says, and only the newest claim changes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, insert, select, update

from scanner.db import holding, leases
from scanner.db.engine import create_database_engine, reader
from scanner.db.leases import Claim, Patience
from scanner.db.schema import outbox

PATIENCE = Patience(lease_ms=3_600_000, max_attempts=2, max_retries=2)


@dataclass
class Row:
    """What the model knows of a row."""

    state: str = leases.PENDING
    attempts: int = 0
    retries: int = 0
    fence: int = 0
    due: bool = True  # pending: its time has come; running: its lease has ended

    @property
    def is_ready(self) -> bool:
        return self.due and self.state in (leases.PENDING, leases.RUNNING)


class Workers(RuleBasedStateMachine):
    """Workers of one table; the database is real."""

    url: str
    claims: Bundle[Claim] = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.engine = create_database_engine(self.url)
        with self.engine.begin() as connection:
            connection.execute(delete(outbox))  # the example before
        self.rows: dict[str, Row] = {}

    def teardown(self) -> None:
        self.engine.dispose()

    @initialize(count=st.integers(1, 4))
    def add(self, count: int) -> None:
        with self.engine.begin() as connection:
            for _ in range(count):
                row_id = f"row-{len(self.rows)}"
                self.rows[row_id] = Row()
                connection.execute(
                    insert(outbox).values(
                        id=row_id, kind="leak", dedupe=row_id, notice={}, created_at=0,
                        state=leases.PENDING, available_at=0,
                    )
                )  # fmt: skip

    @rule(target=claims, suspect=st.booleans(), limit=st.integers(1, 3))
    def claim(self, suspect: bool, limit: int) -> Any:
        ready = {
            row_id
            for row_id, row in self.rows.items()
            if row.is_ready and (row.attempts > 0) is suspect
        }
        with self.engine.begin() as connection:
            claims, parked = leases.claim(
                connection, outbox, PATIENCE, limit=limit, suspect=suspect
            )
        changed = [held.id for held in claims] + [row["id"] for row in parked]
        assert len(set(changed)) == len(changed) == min(len(ready), 1 if suspect else limit)
        assert set(changed) <= ready
        for held in claims:
            row = self.rows[held.id]
            assert row.attempts < PATIENCE.max_attempts
            row.state, row.due = leases.RUNNING, False
            row.attempts, row.fence = row.attempts + 1, row.fence + 1
            assert (held.fence, held.attempts, held.retries) == (
                row.fence, row.attempts, row.retries,
            )  # fmt: skip
        for stopped in parked:
            row = self.rows[stopped["id"]]
            assert row.attempts == PATIENCE.max_attempts
            row.state, row.fence = leases.PARKED, row.fence + 1
        return multiple(*claims)

    def holds(self, held: Claim) -> bool:
        row = self.rows[held.id]
        return (row.state, row.fence) == (leases.RUNNING, held.fence)

    @rule(held=claims)
    def settle(self, held: Claim) -> None:
        with self.engine.begin() as connection:
            assert leases.settle(connection, outbox, held, sent_at=1) is self.holds(held)

    @rule(held=claims)
    def renew(self, held: Claim) -> None:
        kept = self.holds(held)
        assert holding.renew(self.engine, outbox, [held], PATIENCE) == kept
        if kept:
            self.rows[held.id].due = False

    @rule(held=claims)
    def finish(self, held: Claim) -> None:
        kept = self.holds(held)
        with self.engine.begin() as connection:
            assert leases.finish(connection, outbox, held, leases.DONE) is kept
        if kept:
            self.rows[held.id].state = leases.DONE

    @rule(held=claims, blame=st.booleans())
    def release(self, held: Claim, blame: bool) -> None:
        kept = self.holds(held)
        with self.engine.begin() as connection:
            state = leases.release(connection, outbox, held, "x", PATIENCE, blame=blame)
            if state == leases.PENDING:  # it is put off for a second, which a slow machine needs
                later = outbox.c.available_at + 3_600_000
                connection.execute(
                    update(outbox).where(outbox.c.id == held.id).values(available_at=later)
                )
        if not kept:
            assert state is None
            return
        row = self.rows[held.id]
        if not blame:
            row.attempts, row.retries = 0, row.retries + 1
        row.due = False
        row.state = leases.PARKED if row.retries > 2 else leases.PENDING
        assert state == row.state

    @rule()
    def let_time_pass(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                update(outbox).where(outbox.c.state == leases.RUNNING).values(lease_until=1)
            )
            connection.execute(
                update(outbox).where(outbox.c.state == leases.PENDING).values(available_at=0)
            )
        for row in self.rows.values():
            row.due = True

    @rule()
    def retry_parked(self) -> None:
        parked = [row for row in self.rows.values() if row.state == leases.PARKED]
        with self.engine.begin() as connection:
            assert leases.retry_parked(connection, outbox) == len(parked)
        for row in parked:
            row.state, row.attempts, row.retries, row.due = leases.PENDING, 0, 0, True

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        with reader(self.engine).connect() as connection:
            rows = connection.execute(select(outbox)).mappings().all()
        there = {r["id"]: (r["state"], r["attempts"], r["retries"], r["fence"]) for r in rows}
        assert there == {
            row_id: (row.state, row.attempts, row.retries, row.fence)
            for row_id, row in self.rows.items()
        }
        for row in rows:
            assert (row["lease_until"] is not None) is (row["state"] == leases.RUNNING)


@pytest.mark.filterwarnings("default::hypothesis.errors.HypothesisWarning")
def test_workers_against_a_model(database_url: str) -> None:
    class OnADatabase(Workers):
        url = database_url

    run_state_machine_as_test(
        OnADatabase,
        settings=settings(
            derandomize=True, database=None, deadline=None, max_examples=40, stateful_step_count=30
        ),
    )
