"""Seals whose time is over: what is wiped, what is kept of it, and who hears of it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, select

from scanner.correlation import correlated
from scanner.db import audit, outbox, sealed, verdicts
from scanner.db.clock import now_ms
from scanner.db.schema import incidents, scans
from scanner.db.sealed import Cause
from scanner.incident import Phase
from scanner.metrics import SEALED
from scanner.model import AuditAction

log = logging.getLogger(__name__)

_HOUR_MS = 3_600_000


def expire(engine: Engine, live: Collection[str], limit: int) -> bool:
    """Wipe up to `limit` sealed tokens that waited for too long; False: there are none. `live` are
    the ids of the seal keys that there are."""
    with engine.begin() as connection:
        rows = sealed.expired(connection, limit, live)
        # What the store was asked about in time, and never knew, has had its verdict; so has what
        # is held for a revocation.
        unproved = [
            row for row in rows if row["cause"] in (Cause.STORE_UNAVAILABLE, Cause.UNREADABLE)
        ]
        for row in unproved:
            # Keep the places, under the fingerprint that was made when the token was sealed.
            places = sealed.places_of(row)
            verdicts.record_unproved(connection, scan_of(connection, row), places, row)
            _audit(connection, AuditAction.LEAK_UNPROVED, row)
        if unproved:
            _alarm(connection, unproved)
        for row in rows:
            # The next try of its revocation stops, and tells the operator so.
            if row["cause"] == Cause.REVOCATION and _is_unfinished(connection, row):
                _audit(connection, AuditAction.SEAL_EXPIRED, row)
    for row in rows:
        with correlated(row["scan_id"]):
            log.warning("sealed token %s has expired: %s", row["id"], row["cause"])
    SEALED.add(len(rows), outcome="expired")
    return bool(rows)


def scan_of(connection: Connection, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the row of the scan that found a sealed token."""
    found = connection.execute(select(scans).where(scans.c.id == row["scan_id"]))
    return dict(found.mappings().one())


def _is_unfinished(connection: Connection, row: Mapping[str, Any]) -> bool:
    query = select(incidents.c.phase).where(incidents.c.id == row["incident_id"])
    phase = connection.execute(query).scalar_one()
    return Phase(phase) in (Phase.OPEN, Phase.REVOKING)


def _audit(connection: Connection, action: AuditAction, row: Mapping[str, Any]) -> None:
    audit.record(
        connection,
        action,
        incident_id=row["incident_id"],
        correlation_id=row["scan_id"],
        store=row["store"],
        cause=row["cause"],
    )


def _alarm(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    stores = ", ".join(sorted({row["store"] for row in rows}))
    outbox.alarm(
        connection,
        dedupe=f"unproved:{stores}:{now_ms(connection) // _HOUR_MS}"[:100],
        title="Leaked tokens could not be proved in time",
        explanation=f"{len(rows)} or more tokens waited for {stores} until their seals expired. "
        "Whether they still work is not known.",
        what_to_do="See: patrol audit list; ask the token store, and scan their repositories anew",
    )
