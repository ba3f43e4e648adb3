"""The audit trail: immutable events, and a hash chain that a sealer writes over them.

Events are inserted in the transaction of the step they record. The sealer numbers them and chains
their hashes in a second table; the unique sequence number lets one sealer at a time succeed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select

from scanner.db.clock import now_ms, to_iso
from scanner.db.schema import audit_events, audit_seals, new_id
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
            at=now_ms(connection),
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
    """Seal up to a batch of unsealed events; returns how many. Run it until it returns 0."""
    last = connection.execute(
        select(audit_seals).order_by(audit_seals.c.sequence.desc()).limit(1)
    ).one_or_none()
    sequence, previous = (last.sequence, last.hash) if last else (0, GENESIS)
    unsealed = (
        connection.execute(
            select(audit_events)
            .outerjoin(audit_seals, audit_seals.c.event_id == audit_events.c.id)
            .where(audit_seals.c.event_id.is_(None))
            .order_by(audit_events.c.at, audit_events.c.id)
            .limit(_SEAL_BATCH)
        )
        .mappings()
        .all()
    )
    now = now_ms(connection)
    for event in unsealed:
        sequence += 1
        digest = _event_hash(previous, sequence, dict(event))
        connection.execute(
            insert(audit_seals).values(
                sequence=sequence,
                event_id=event["id"],
                previous_hash=previous,
                hash=digest,
                sealed_at=now,
            )
        )
        previous = digest
    return len(unsealed)


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
    total = connection.execute(select(func.count()).select_from(audit_events)).scalar_one()
    sealed = connection.execute(
        select(func.count())
        .select_from(audit_events)
        .join(audit_seals, audit_seals.c.event_id == audit_events.c.id)
    ).scalar_one()
    return Verification(expected - 1, total - sealed, previous, tuple(problems))


def list_events(
    connection: Connection, *, incident_id: str | None = None, limit: int = 200
) -> list[dict[str, Any]]:
    """Return the newest events, oldest first, with their seal's sequence number."""
    query = (
        select(audit_events, audit_seals.c.sequence)
        .outerjoin(audit_seals, audit_seals.c.event_id == audit_events.c.id)
        .order_by(audit_events.c.at.desc(), audit_events.c.id.desc())
        .limit(limit)
    )
    if incident_id is not None:
        query = query.where(audit_events.c.incident_id == incident_id)
    rows = connection.execute(query).mappings().all()
    return [{**row, "at": to_iso(row["at"])} for row in reversed(rows)]
