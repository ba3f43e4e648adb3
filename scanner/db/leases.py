"""Claiming work: conditional updates with a lease and a fencing number.

A row is `pending` until claimed, `running` while its lease lasts, and ends in a state its owner
names. A claim counts an attempt before the work begins, so that input that kills its worker is
parked after `max_attempts` instead of killing workers for ever. A row that was tried before is
claimed alone: its neighbours must not share its fate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, func, or_, select, update

from scanner.db.clock import now_ms

PENDING, RUNNING, PARKED, DONE = "pending", "running", "parked", "done"
_FIRST_RETRY_MS, _LONGEST_RETRY_MS = 1_000, 3_600_000


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on one row until the lease ends; `fence` proves it."""

    id: str
    fence: int
    attempts: int
    row: Mapping[str, Any]


def _ready(table: Table, now: int) -> ColumnElement[bool]:
    return or_(
        and_(table.c.state == PENDING, table.c.available_at <= now),
        and_(table.c.state == RUNNING, table.c.lease_until < now),
    )


def claim(
    connection: Connection, table: Table, *, limit: int, lease_ms: int, max_attempts: int
) -> tuple[list[Claim], list[Mapping[str, Any]]]:
    """Claim up to `limit` rows. Returns the claims, and the rows parked for too many attempts.

    Both must be committed by the caller before any work starts.
    """
    now = now_ms(connection)
    rows = (
        connection.execute(
            select(table)
            .where(_ready(table, now))
            .order_by(table.c.available_at, table.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        .mappings()
        .all()
    )
    fresh = [row for row in rows if row["attempts"] == 0]
    chosen = fresh or list(rows[:1])
    claims: list[Claim] = []
    parked: list[Mapping[str, Any]] = []
    for row in chosen:
        if row["attempts"] >= max_attempts:
            connection.execute(
                update(table)
                .where(table.c.id == row["id"])
                .values(
                    state=PARKED,
                    lease_until=None,
                    error=row["error"] or f"stopped without an answer {row['attempts']} times",
                )
            )
            parked.append(dict(row))
            continue
        fence = row["fence"] + 1
        connection.execute(
            update(table)
            .where(table.c.id == row["id"])
            .values(
                state=RUNNING,
                fence=fence,
                attempts=row["attempts"] + 1,
                lease_until=now + lease_ms,
            )
        )
        claims.append(Claim(row["id"], fence, row["attempts"] + 1, dict(row)))
    return claims, parked


def settle(connection: Connection, table: Table, held: Claim, **values: Any) -> bool:
    """Change the claimed row; False when the claim was lost meanwhile: then roll back."""
    result = connection.execute(
        update(table)
        .where(table.c.id == held.id, table.c.fence == held.fence, table.c.state == RUNNING)
        .values(**values)
    )
    return result.rowcount == 1


def finish(connection: Connection, table: Table, held: Claim, state: str, **values: Any) -> bool:
    """End the claim in `state`; False when the claim was lost meanwhile."""
    return settle(connection, table, held, state=state, lease_until=None, **values)


def release(connection: Connection, table: Table, held: Claim, error: str) -> bool:
    """Give the row back for another attempt, later each time (1 s, doubling, at most an hour)."""
    delay = min(_FIRST_RETRY_MS << (held.attempts - 1), _LONGEST_RETRY_MS)
    return finish(
        connection,
        table,
        held,
        PENDING,
        available_at=now_ms(connection) + delay,
        error=error[:500],
    )


def ready_count(connection: Connection, table: Table, now: int) -> int:
    """Return how many rows could be claimed now."""
    return connection.execute(
        select(func.count()).select_from(table).where(_ready(table, now))
    ).scalar_one()
