"""Writing down one finding of a scan: its incident, its sighting, its audit event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from scanner.db import audit, incidents
from scanner.keyring import Key
from scanner.model import AuditAction, LocatedCandidate, Lookup

_MOST_PATH = 1_000  # characters kept


def record_finding(
    connection: Connection,
    scan: Mapping[str, Any],
    found: LocatedCandidate,
    lookup: Lookup,
    *,
    key: Key,
    path: str,
) -> None:
    """Record what `scan` (its row) found, in the caller's transaction, which holds all of its
    findings. `path` is masked already. A finding that the store does not know is kept as a
    fingerprint under `key`; a known one opens its token's incident or joins it.
    """
    incident_id, is_new = None, False
    if lookup.token is not None:
        incident_id, is_new = incidents.open_incident(connection, lookup, scan["id"])
    added = incidents.add_sighting(
        connection,
        incident_id=incident_id,
        scan=scan,
        found=found,
        lookup=lookup,
        path=path.encode("utf-8", "backslashreplace").decode()[:_MOST_PATH],
        key=key,
    )
    if added and lookup.token is not None and not is_new:
        audit.record(
            connection,
            AuditAction.LEAK_SEEN_AGAIN,
            organisation_id=lookup.token.organisation_id,
            incident_id=incident_id,
            token_id=lookup.token.token_id,
            correlation_id=scan["id"],
        )
