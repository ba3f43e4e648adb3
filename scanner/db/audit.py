"""The audit trail: immutable events, and a hash chain that a sealer writes over them.

Events are inserted in the transaction of the step they record, which queues them for the sealer as
well. The sealer numbers them and chains their hashes in a second table; the unique sequence number
lets one sealer at a time succeed. It empties a queue, rather than look for what has no seal or is
newer than the last: so it misses no transaction that commits late, and its cost does not grow with
the trail.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from scanner.db.clock import now_in, now_ms, to_iso
from scanner.db.dialect import SEAL_LOCK, try_lock_alone
from scanner.db.schema import audit_events, audit_queue, audit_seals, new_id
from scanner.model import AuditAction

SYSTEM = "patrol"
GENESIS = "0" * 64
_SEAL_BATCH = 1_000


def record(
    connection: Connection,
    action: AuditAction,
    *,
    actor: str = SYSTEM,
    organisation_id: str | None = None,
    incident_id: str | None = None,
    token_id: str | None = None,
    correlation_id: str | None = None,
    **data: Any,
) -> None:
    """Insert one event; it commits or vanishes with the caller's transaction."""
    connection.execute(
        insert(audit_events).values(
            id=new_id(),
            at=now_in(connection),
            action=action.value,
            actor=actor,
            organisation_id=organisation_id,
            incident_id=incident_id,
            token_id=token_id,
            correlation_id=correlation_id,
            data=data,
        )
    )


def _event_hash(previous: str, sequence: int, event: Mapping[str, Any]) -> str:
    canonical = json.dumps([sequence, dict(event)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(previous.encode() + canonical.encode()).hexdigest()


def seal(connection: Connection) -> int:
    """Seal up to a batch of the events that wait; returns how many. Run it until it returns 0.

    While another one seals there is nothing to do: who waited for one that hangs would hang too.
    """
    if not try_lock_alone(connection, SEAL_LOCK):
        return 0
    waiting = (
        connection.execute(
            select(audit_queue.c.number, audit_events)
            .join(audit_events, audit_events.c.id == audit_queue.c.event_id)
            .order_by(audit_queue.c.number)
            .limit(_SEAL_BATCH)
        )
        .mappings()
        .all()
    )
    if not waiting:
        return 0
    last = connection.execute(
        select(audit_seals).order_by(audit_seals.c.sequence.desc()).limit(1)
    ).one_or_none()
    newest, previous = (last.sequence, last.hash) if last else (0, GENESIS)
    now = now_ms(connection)
    seals = []
    for sequence, row in enumerate(waiting, newest + 1):
        event = {column.name: row[column.name] for column in audit_events.c}
        digest = _event_hash(previous, sequence, event)
        seals.append(
            {
                "sequence": sequence,
                "event_id": row["id"],
                "previous_hash": previous,
                "hash": digest,
                "sealed_at": now,
            }
        )
        previous = digest
    connection.execute(insert(audit_seals), seals)
    connection.execute(
        delete(audit_queue).where(audit_queue.c.number == bindparam("done")),
        [{"done": row["number"]} for row in waiting],
    )
    return len(waiting)


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found: `problems` is empty when every sealed event is as it was written."""

    sealed: int
    unsealed: int
    head: str  # hash of the newest seal; note it elsewhere to detect a truncated trail
    problems: tuple[str, ...]


def verify(connection: Connection) -> Verification:
    """Recompute the chain over all seals and compare."""
    rows = connection.execute(
        select(audit_seals, *(column.label(f"the_{column.name}") for column in audit_events.c))
        .outerjoin(audit_events, audit_seals.c.event_id == audit_events.c.id)
        .order_by(audit_seals.c.sequence)
        .execution_options(yield_per=_SEAL_BATCH)  # a trail of years does not fit into memory
    ).mappings()
    problems: list[str] = []
    previous, expected = GENESIS, 1
    for row in rows:
        sequence = row["sequence"]
        if sequence != expected:
            problems.append(f"seal {expected} is missing before seal {sequence}")
            expected = sequence
        if row["previous_hash"] != previous:
            problems.append(f"seal {sequence} does not follow the seal before it")
        event = {column.name: row[f"the_{column.name}"] for column in audit_events.c}
        if event["id"] is None:
            problems.append(f"the event of seal {sequence} was removed")
        elif _event_hash(row["previous_hash"], sequence, event) != row["hash"]:
            problems.append(f"the event of seal {sequence} was changed")
        previous, expected = row["hash"], expected + 1
    unsealed = connection.execute(
        select(func.count())
        .select_from(audit_events)
        .outerjoin(audit_seals, audit_seals.c.event_id == audit_events.c.id)
        .where(audit_seals.c.event_id.is_(None))
    ).scalar_one()
    queued, waiting = connection.execute(
        select(func.count(audit_queue.c.number), func.count(audit_events.c.id))
        .select_from(audit_queue)
        .outerjoin(audit_events, audit_events.c.id == audit_queue.c.event_id)
    ).one()
    if queued > waiting:
        problems.append(f"{queued - waiting} events were removed before they were sealed")
    if unsealed > waiting:
        problems.append(f"{unsealed - waiting} events have no seal and wait for none")
    return Verification(expected - 1, unsealed, previous, tuple(problems))


def list_events(
    connection: Connection, *, incident_id: str | None = None, limit: int = 200
) -> list[dict[str, Any]]:
    """Return the newest events, oldest first, with their seal's sequence number."""
    query = (
        select(audit_events, audit_seals.c.sequence)
        .outerjoin(audit_seals, audit_seals.c.event_id == audit_events.c.id)
        .outerjoin(audit_queue, audit_queue.c.event_id == audit_events.c.id)
        # Within one millisecond as they were written: first what still waits for its seal.
        .order_by(
            audit_events.c.at.desc(),
            audit_seals.c.sequence.desc().nulls_first(),
            audit_queue.c.number.desc(),
        )
        .limit(limit)
    )
    if incident_id is not None:
        query = query.where(audit_events.c.incident_id == incident_id)
    rows = connection.execute(query).mappings().all()
    return [{**row, "at": to_iso(row["at"])} for row in reversed(rows)]
