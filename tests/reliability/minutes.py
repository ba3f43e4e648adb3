"""Minutes that pass in no time."""

from __future__ import annotations

from sqlalchemy import Engine, update

from scanner.db.schema import incidents, outbox, scans, sealed_candidates, watches

_WORK = (scans, incidents, outbox, sealed_candidates)


def pass_time(engine: Engine) -> None:
    """Let every lease and every pause end."""
    with engine.begin() as connection:
        for table in _WORK:
            running = update(table).where(table.c.state == "running")
            connection.execute(running.values(lease_until=0))
    end_pauses(engine)


def end_pauses(engine: Engine) -> None:
    """Let all that waits for its time be due now; who holds a lease keeps it."""
    with engine.begin() as connection:
        for table in _WORK:
            pending = update(table).where(table.c.state == "pending")
            connection.execute(pending.values(available_at=0))
        connection.execute(update(watches).values(next_due=0))
