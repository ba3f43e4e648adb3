"""What the service keeps of itself: the ledger of files, signs of life, quotas, the audit trail."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Table

from scanner.db.dialect import Counter, String
from scanner.db.schema.columns import metadata

# Blobs that were scanned whole and had no candidate, by exact id and ruleset (law 7).
blob_ledger = Table(
    "blob_ledger",
    metadata,
    Column("ruleset", String(64), primary_key=True),
    Column("object_id", String(64), primary_key=True),
    Column("scanned_at", BigInteger, nullable=False),
    Index("blob_ledger_age", "scanned_at"),
)

# When each kind of process last did its round.
heartbeats = Table(
    "heartbeats",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("at", BigInteger, nullable=False),
)

# How much of the present minute's look-ups each caller has used.
quotas = Table(
    "quotas",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("window", BigInteger, nullable=False),
    Column("used", Integer, nullable=False),
)

# When the newest alarm of each kind goes out: there is at most one an hour.
alarm_turns = Table(
    "alarm_turns",
    metadata,
    Column("topic", String(32), primary_key=True),
    Column("due_at", BigInteger, nullable=False),
)

store_freezes = Table(
    "store_freezes",
    metadata,
    Column("store", String(64), primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("reason", String(300), nullable=False),
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("action", String(64), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("organisation_id", String(64)),
    Column("incident_id", String(24)),
    Column("token_id", String(200)),
    Column("correlation_id", String(24)),
    Column("data", JSON, nullable=False),
    Index("audit_events_at", "at"),
)

# Events that wait for the sealer, in the order they were written: a trigger on audit_events adds.
audit_queue = Table(
    "audit_queue",
    metadata,
    Column("number", Counter, primary_key=True),
    Column("event_id", String(24), nullable=False, unique=True),
)

audit_seals = Table(
    "audit_seals",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", String(24), nullable=False, unique=True),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("sealed_at", BigInteger, nullable=False),
)
