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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Table,
    TextClause,
    Update,
    select,
    text,
    update,
)

from scanner.db.clock import now_in
from scanner.db.schema import SUSPECT

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


def claim(
    connection: Connection,
    table: Table,
    patience: Patience,
    *,
    limit: int,
    suspect: bool,
    lanes: Sequence[int] | None = None,
) -> tuple[list[Claim], list[Mapping[str, Any]]]:
    """Claim up to `limit` rows that are in good standing or, with `suspect`, one whose last claim
    did not come back. Returns the claims, and the rows parked for too many attempts.

    `lanes`, the most urgent first: rows of these alone, for a table that has lanes. Both must be
    committed by the caller before any work starts.
    """
    if suspect:
        return _claim_suspect(connection, table, patience, lanes)
    claims: list[Claim] = []
    for lane in (None,) if lanes is None else lanes:
        if len(claims) < limit:
            claims += _claim_batch(connection, table, patience, limit - len(claims), lane)
    return claims, []


def _claim_batch(
    connection: Connection, table: Table, patience: Patience, limit: int, lane: int | None
) -> list[Claim]:
    # One statement, and each lane by itself: an index has its rows in the order they are due.
    picked = (
        select(table.c.id)
        .where(
            *(() if lane is None else (table.c.priority == lane,)),
            table.c.state == PENDING,
            _due(connection, table),
            table.c.attempts == 0,
        )
        .order_by(table.c.available_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("picked")
    )
    rows = connection.execute(
        _start(connection, table, patience).where(table.c.id == picked.c.id).returning(table)
    ).mappings()
    return sorted(map(_claimed, rows), key=lambda one: (one.row["available_at"], one.id))


def _claim_suspect(
    connection: Connection, table: Table, patience: Patience, lanes: Sequence[int] | None
) -> tuple[list[Claim], list[Mapping[str, Any]]]:
    row = _first_suspect(connection, table, lanes)
    if row is None:
        return [], []
    this = table.c.id == row["id"]
    if row["attempts"] < patience.max_attempts:
        started = connection.execute(
            _start(connection, table, patience).where(this).returning(table)
        )
        return [_claimed(started.mappings().one())], []
    error = row["error"] or f"stopped without an answer {row['attempts']} times"
    values = {"state": PARKED, "fence": row["fence"] + 1, "lease_until": None, "error": error}
    connection.execute(update(table).where(this).values(values))
    return [], [{**row, **values}]


def _start(connection: Connection, table: Table, patience: Patience) -> Update:
    return update(table).values(
        state=RUNNING,
        fence=table.c.fence + 1,
        lease_until=now_in(connection) + patience.lease_ms,
        attempts=table.c.attempts + 1,
        # Whatever stops this attempt says so itself; the last one's error would mislead.
        error=None,
    )


def _claimed(row: RowMapping) -> Claim:
    return Claim(row["id"], row["fence"], row["attempts"], row["retries"], dict(row))


def _due(connection: Connection, table: Table) -> ColumnElement[bool]:
    return table.c.available_at <= now_in(connection)


def _first_suspect(
    connection: Connection, table: Table, lanes: Sequence[int] | None
) -> RowMapping | None:
    """The oldest row whose last claim did not come back: its lease ended, or it said so itself."""
    for suspect in _suspects(connection, table):
        found = connection.execute(
            select(table)
            .where(*suspect, *_of_lanes(table, lanes))
            .order_by(table.c.available_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        row = found.mappings().one_or_none()
        if row is not None:
            return row
    return None


def _suspects(
    connection: Connection, table: Table
) -> Iterator[Sequence[ColumnElement[bool] | TextClause]]:
    # Asked one after the other: each has an index of its own.
    yield table.c.state == RUNNING, table.c.lease_until < now_in(connection)
    yield text(SUSPECT), _due(connection, table)


def _of_lanes(table: Table, lanes: Sequence[int] | None) -> tuple[ColumnElement[bool], ...]:
    # The sum keeps a database from preferring the index that begins with state and lane.
    return () if lanes is None else ((table.c.priority + 0).in_(lanes),)


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
        available_at=now_in(connection)
        + min(_FIRST_RETRY_MS << doublings, patience.longest_retry_ms),
        error=error[:500],
    )
    return state if kept else None


def hand_back(connection: Connection, table: Table, held: Claim) -> bool:
    """Give the row back as it was, for others to take at once: nothing was done about it."""
    return finish(connection, table, held, PENDING, attempts=held.attempts - 1)


def retry_parked(connection: Connection, table: Table) -> int:
    """Put everything that is parked back to work, with all its attempts; returns how many."""
    result = connection.execute(
        update(table)
        .where(table.c.state == PARKED)
        .values(state=PENDING, attempts=0, retries=0, available_at=now_in(connection), error=None)
    )
    return result.rowcount


def is_ready(connection: Connection, table: Table, lane: int | None = None) -> bool:
    """True when something could be claimed now, of that lane if one is given."""
    lanes = None if lane is None else [lane]
    good = (
        *(() if lane is None else (table.c.priority == lane,)),
        table.c.state == PENDING,
        _due(connection, table),
    )
    suspects = ((*where, *_of_lanes(table, lanes)) for where in _suspects(connection, table))
    return any(
        connection.execute(select(table.c.id).where(*where).limit(1)).first() is not None
        for where in (good, *suspects)
    )
