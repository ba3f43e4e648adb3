"""The tables. Times are the database's milliseconds (BigInteger), ids are random hex text.

Work tables (`scans`, `incidents`, `outbox`) share the lease columns: state, attempts, retries (see
leases.py), available_at, lease_until and fence, a number that grows with every claim so that a
stale worker changes nothing.
"""

from __future__ import annotations

from scanner.db.schema.columns import SUSPECT, UNFINISHED, metadata, new_id
from scanner.db.schema.issued import (
    digest_chains,
    key_checks,
    organisations,
    owners,
    tokens,
)
from scanner.db.schema.keeping import (
    alarm_turns,
    audit_events,
    audit_queue,
    audit_seals,
    blob_ledger,
    heartbeats,
    quotas,
    store_freezes,
)
from scanner.db.schema.work import (
    incidents,
    outbox,
    policies,
    repositories,
    scanned_heads,
    scans,
    sealed_candidates,
    sightings,
    unknown_digests,
    watches,
)

__all__ = [
    "SUSPECT",
    "UNFINISHED",
    "alarm_turns",
    "audit_events",
    "audit_queue",
    "audit_seals",
    "blob_ledger",
    "digest_chains",
    "heartbeats",
    "incidents",
    "key_checks",
    "metadata",
    "new_id",
    "organisations",
    "outbox",
    "owners",
    "policies",
    "quotas",
    "repositories",
    "scanned_heads",
    "scans",
    "sealed_candidates",
    "sightings",
    "store_freezes",
    "tokens",
    "unknown_digests",
    "watches",
]
