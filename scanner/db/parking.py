"""Work that waits for a person: its row, the trail and the operator say so, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table

from scanner.db import alarms, audit, leases
from scanner.db.alarms import Topic
from scanner.db.leases import Claim
from scanner.model import AuditAction

_MOST_SAID = 500  # characters, as its column


def park(connection: Connection, table: Table, claim: Claim, said: str) -> bool:
    """Set a claimed row apart with the reason; False: it is another worker's by now."""
    return leases.finish(connection, table, claim, leases.PARKED, error=said[:_MOST_SAID])


def tell(
    connection: Connection,
    action: AuditAction,
    topic: Topic,
    what: str,
    row: Mapping[str, Any],
    *,
    correlation_id: str | None,
    incident_id: str | None = None,
    **facts: Any,
) -> None:
    """Audit that `row` was parked for its `error`, and raise the operator's alarm, in which it is
    called `what`."""
    audit.record(
        connection,
        action,
        incident_id=incident_id,
        correlation_id=correlation_id,
        error=row["error"],
        **facts,
    )
    alarms.raise_alarm(connection, topic, f"{what}: {row['error']}", incident_id)
