"""Claiming work: conditional updates with a lease and a fencing number.

A row is `pending` until claimed, `running` while its lease lasts, and ends in a state its owner
names. A claim counts an attempt before the work begins, so that input that kills its worker is
parked after `max_attempts` instead of killing workers for ever; coming back in order takes the
count back. A row whose last claim did not come back is claimed alone: its neighbours must not share
its fate.

Two counts, because two things go wrong: `attempts` grows while the row itself may be to blame,
`retries` while the world is (a host or a store that is away), which may last for days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, func, or_, select, update

from scanner.db.clock import now_ms

PENDING, RUNNING, PARKED, DONE = "pending", "running", "parked", "done"
_FIRST_RETRY_MS = 1_000
_MOST_DOUBLINGS = 12  # 4,096 s: beyond the longest


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on: `lease_ms` a claim, `max_attempts` claims that never came back,
    `max_retries` orderly returns (None: for ever), with at most `longest_retry_ms` between."""

    lease_ms: int
    max_attempts: int
    max_retries: int | None
    longest_retry_ms: int = 3_600_000


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on one row until the lease ends; `fence` proves it."""

    id: str
    fence: int
    attempts: int  # this one included
    retries: int
    row: Mapping[str, Any]


def _ready(table: Table, now: int) -> ColumnElement[bool]:
    return or_(
        and_(table.c.state == PENDING, table.c.available_at <= now),
        and_(table.c.state == RUNNING, table.c.lease_until < now),
    )


def claim(
    connection: Connection, table: Table, patience: Patience, *, limit: int, suspect: bool
) -> tuple[list[Claim], list[Mapping[str, Any]]]:
    """Claim up to `limit` rows that are in good standing or, with `suspect`, one whose last claim
    did not come back. Returns the claims, and the rows parked for too many attempts.

    Both must be committed by the caller before any work starts.
    """
    now = now_ms(connection)
    standing = table.c.attempts > 0 if suspect else table.c.attempts == 0
    rows = (
        connection.execute(
            select(table)
            .where(_ready(table, now), standing)
            .order_by(table.c.available_at, table.c.id)
            .limit(1 if suspect else limit)
            .with_for_update(skip_locked=True)
        )
        .mappings()
        .all()
    )
    claims: list[Claim] = []
    parked: list[Mapping[str, Any]] = []
    for row in rows:
        fence, attempts = row["fence"] + 1, row["attempts"] + 1
        if row["attempts"] >= patience.max_attempts:
            error = row["error"] or f"stopped without an answer {row['attempts']} times"
            values = {"state": PARKED, "fence": fence, "lease_until": None, "error": error}
            parked.append({**row, **values})
            connection.execute(update(table).where(table.c.id == row["id"]).values(values))
        else:
            claims.append(Claim(row["id"], fence, attempts, row["retries"], dict(row)))
    if claims:
        connection.execute(
            update(table)
            .where(table.c.id.in_([one.id for one in claims]))
            .values(
                state=RUNNING,
                fence=table.c.fence + 1,
                lease_until=now + patience.lease_ms,
                attempts=table.c.attempts + 1,
                # Whatever stops this attempt says so itself; the last one's error would mislead.
                error=None,
            )
        )
    return claims, parked


def take(
    engine: Engine,
    table: Table,
    patience: Patience,
    *,
    limit: int,
    on_parked: Callable[[Connection, Mapping[str, Any]], None],
) -> Iterator[list[Claim]]:
    """Yield what there is to do now: first a batch in good standing, then one suspect row alone.

    Each is claimed and committed just before it is yielded. `on_parked` gets every row that was
    parked instead, in the transaction that parks it.
    """
    for suspect in (False, True):
        with engine.begin() as connection:
            claims, parked = claim(connection, table, patience, limit=limit, suspect=suspect)
            for row in parked:
                on_parked(connection, row)
        if claims or parked:
            yield claims


def settle(connection: Connection, table: Table, held: Claim, **values: Any) -> bool:
    """Change the claimed row; False when the claim was lost meanwhile: then roll back."""
    result = connection.execute(
        update(table)
        .where(table.c.id == held.id, table.c.fence == held.fence, table.c.state == RUNNING)
        .values(**values)
    )
    return result.rowcount == 1


def renew(engine: Engine, table: Table, held: Claim, patience: Patience) -> bool:
    """Begin the lease anew, just before what must not be done twice; False when it was lost."""
    with engine.begin() as connection:
        until = now_ms(connection) + patience.lease_ms
        return settle(connection, table, held, lease_until=until)


def finish(connection: Connection, table: Table, held: Claim, state: str, **values: Any) -> bool:
    """End the claim in `state`; False when the claim was lost meanwhile."""
    return settle(connection, table, held, state=state, lease_until=None, **values)


def release(
    connection: Connection,
    table: Table,
    held: Claim,
    error: str,
    patience: Patience,
    *,
    blame: bool = False,
) -> str | None:
    """Give the row back for another try, later each time (1 s, doubling, up to the longest).

    `blame`: the row itself may be the cause, so the attempt stays counted. Returns the new state:
    `pending`, `parked` when patience has run out, None when the claim was lost meanwhile.
    """
    retries = held.retries + (not blame)
    doublings = min(retries + held.attempts - 1 - (not blame), _MOST_DOUBLINGS)
    exhausted = patience.max_retries is not None and retries > patience.max_retries
    state = PARKED if exhausted else PENDING
    kept = finish(
        connection,
        table,
        held,
        state,
        attempts=held.attempts if blame else 0,
        retries=retries,
        available_at=now_ms(connection)
        + min(_FIRST_RETRY_MS << doublings, patience.longest_retry_ms),
        error=error[:500],
    )
    return state if kept else None


def retry_parked(connection: Connection, table: Table) -> int:
    """Put everything that is parked back to work, with all its attempts; returns how many."""
    result = connection.execute(
        update(table)
        .where(table.c.state == PARKED)
        .values(state=PENDING, attempts=0, retries=0, available_at=now_ms(connection), error=None)
    )
    return result.rowcount


def ready_count(connection: Connection, table: Table, now: int) -> int:
    """Return how many rows could be claimed now."""
    return connection.execute(
        select(func.count()).select_from(table).where(_ready(table, now))
    ).scalar_one()
