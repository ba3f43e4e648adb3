"""Seal keys by day: made when a day begins, destroyed when nothing may wait under them any more."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from sqlalchemy import Connection, Engine, delete, select

from scanner.db import audit
from scanner.db.clock import now_ms
from scanner.db.engine import reader
from scanner.db.keycheck import check_keys
from scanner.db.schema import key_checks
from scanner.keyring import Ring
from scanner.model import AuditAction

PURPOSE = "seal"
_MARGIN = timedelta(days=1)  # a value sealed at the end of its day waits its full time


def turn_seal_keys(engine: Engine, ring: Ring, keep_days: float) -> None:
    """Make today's key and destroy the outdated ones; nothing is done for a ring that a setting
    gives. `keep_days`: how long a value may wait.

    Errors: `ConfigurationError` when another data directory made today's key.
    """
    if not ring.is_file:
        return
    with reader(engine).connect() as connection:
        today = datetime.fromtimestamp(now_ms(connection) / 1000, UTC).date()
    last = today - timedelta(days=keep_days) - _MARGIN
    if ring[0].id == today.isoformat() and not _outdated(ring, last):
        return
    with engine.begin() as connection:
        ring.add(today.isoformat())
        if not _is_recorded(connection, today.isoformat()):
            audit.record(connection, AuditAction.KEY_MADE, purpose=PURPOSE, key=today.isoformat())
        check_keys(connection, PURPOSE, ring)
        outdated = _outdated(ring, last)
        for key_id in outdated:
            audit.record(connection, AuditAction.KEY_DESTROYED, purpose=PURPOSE, key=key_id)
        connection.execute(
            delete(key_checks).where(
                key_checks.c.purpose == PURPOSE, key_checks.c.key_id.in_(outdated)
            )
        )
    if outdated:
        ring.remove(outdated)


def _is_recorded(connection: Connection, key_id: str) -> bool:
    found = connection.execute(
        select(key_checks.c.key_id).where(
            key_checks.c.purpose == PURPOSE, key_checks.c.key_id == key_id
        )
    )
    return found.first() is not None


def _outdated(ring: Ring, last: date) -> list[str]:
    keys = tuple(ring)
    return [
        key.id
        for newer, key in pairwise(keys)
        # Since its successor came, nothing was sealed under it.
        if (begun := _day(newer.id)) is not None and begun < last
    ]


def _day(key_id: str) -> date | None:
    try:
        return date.fromisoformat(key_id)
    except ValueError:
        return None
