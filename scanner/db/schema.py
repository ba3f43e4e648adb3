"""The tables. Times are the database's milliseconds (BigInteger), ids are random hex text.

Work tables (`scans`, `incidents`, `outbox`) share the lease columns: state, attempts, retries (see
leases.py), available_at, lease_until and fence, a number that grows with every claim so that a
stale worker changes nothing.
"""

from __future__ import annotations

import secrets

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
    text,
)

from scanner.db.dialect import Counter, String

metadata = MetaData()


def new_id() -> str:
    """A fresh row id: 96 random bits as hex."""
    return secrets.token_hex(12)


# Work that did not come back is rare, and must be found among much that never went out.
SUSPECT = "state = 'pending' AND attempts > 0"
UNFINISHED = "state IN ('pending', 'running')"  # a watch has many scans, and hardly one of these


def _suspects(table: str) -> Index:
    where = text(SUSPECT)
    name, columns = f"{table}_suspects", ("state", "available_at")
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


def _work_columns() -> list[Column[object]]:
    return [
        Column("state", String(24), nullable=False),
        Column("attempts", Integer, nullable=False, default=0),
        Column("retries", Integer, nullable=False, default=0, server_default="0"),
        Column("available_at", BigInteger, nullable=False),
        Column("lease_until", BigInteger),
        Column("fence", Integer, nullable=False, default=0),
        Column("error", String(500)),
    ]


organisations = Table(
    "organisations",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("contact_email", String(320)),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
)

owners = Table(
    "owners",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("email", String(320)),
    Column("disabled_at", BigInteger),
    Column("kind", String(8), nullable=False, default="person", server_default="person"),
    UniqueConstraint("organisation_id", "name"),
)

policies = Table(
    "policies",
    metadata,
    Column("store", String(64), primary_key=True, server_default="built-in"),
    Column("organisation_id", String(64), primary_key=True),  # the store's own id of it
    Column("version", Integer, primary_key=True),
    Column("auto_revoke", Boolean, nullable=False),
    Column("changed_by", String(200), nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("owner_id", ForeignKey("owners.id")),
    Column("name", String(200), nullable=False),
    Column("pattern", String(100), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("mask", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),  # a chain of keys: "k1>k2", or its name
    Column("valid_from", BigInteger, nullable=False),
    Column("valid_to", BigInteger),
    Column("state", String(16), nullable=False),
    Column("revoked_at", BigInteger),
    Column("revoked_by", String(64)),  # an incident's id, or who did it by hand
    Column("created_at", BigInteger, nullable=False),
    Column("predecessor_id", String(24)),  # the token it was rotated from
    Column("external_id", String(200)),  # what the issuer's own books call it
    UniqueConstraint("digest", "key_id"),
    Index("tokens_listed", "created_at", "id"),
    Index("tokens_owned", "organisation_id", "owner_id", "created_at", "id"),
)
# A token is rotated once: whoever comes second rotates its successor.
Index(
    "tokens_predecessor",
    tokens.c.predecessor_id,
    unique=True,
    sqlite_where=tokens.c.predecessor_id.is_not(None),
    postgresql_where=tokens.c.predecessor_id.is_not(None),
)

# Every chain of keys that a digest in `tokens` may be made with: a lookup tries each.
digest_chains = Table(
    "digest_chains",
    metadata,
    Column("key_id", String(64), primary_key=True),
    Column("links", String(4096)),  # the chain, where `key_id` is but a name for it
    Column("created_at", BigInteger, nullable=False),
)

key_checks = Table(
    "key_checks",
    metadata,
    Column("purpose", String(32), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("value", String(64), nullable=False),
)

repositories = Table(
    "repositories",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("host", String(300), nullable=False),  # scheme://host[:port] fetches go to
    Column("name", String(300), nullable=False),  # owner/name, masked if it held a token
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("host", "name"),
)

watches = Table(
    "watches",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("repository_id", ForeignKey("repositories.id"), nullable=False, unique=True),
    Column("every_ms", BigInteger, nullable=False),
    Column("next_due", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

scans = Table(
    "scans",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("source", String(32), nullable=False),  # github-webhook, watch
    Column("hook", String(64)),
    Column("body_digest", String(64)),
    Column("watch_id", String(24)),
    Column("due_at", BigInteger),
    Column("repository_id", ForeignKey("repositories.id"), nullable=False),
    Column("ref", String(400)),  # masked; null: every ref
    Column("before", String(64)),
    Column("after", String(64)),
    Column("forced", Boolean, nullable=False, default=False),
    Column("sealed", LargeBinary),  # raw ref and name, only if they held a token
    Column("delivery", String(100)),  # a hint, outside the signature
    Column("received_at", BigInteger, nullable=False),
    Column("fetched_at", BigInteger),
    Column("matched_at", BigInteger),
    Column("proved_at", BigInteger),
    Column("objects", Integer),
    Column("bytes", BigInteger),
    Column("candidates", Integer),
    Column("partial", JSON, nullable=False, default=list),
    Column("priority", Integer, nullable=False, default=1, server_default="1"),  # a Lane
    Column("seal_key", String(64)),
    *_work_columns(),
    UniqueConstraint("hook", "body_digest"),
    UniqueConstraint("watch_id", "due_at"),
    Index("scans_work", "state", "priority", "available_at"),
    _suspects("scans"),
    Index(
        "scans_of_watch",
        "watch_id",
        sqlite_where=text(UNFINISHED),
        postgresql_where=text(UNFINISHED),
    ),
)

scanned_heads = Table(
    "scanned_heads",
    metadata,
    Column("repository_id", ForeignKey("repositories.id"), primary_key=True),
    Column("ruleset", String(64), primary_key=True),
    Column("object_id", String(64), primary_key=True),
    Column("scanned_at", BigInteger, nullable=False),
    Index("scanned_heads_newest", "repository_id", "ruleset", "scanned_at"),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("store", String(64), nullable=False),
    Column("token_id", String(200), nullable=False),
    Column("generation", Integer, nullable=False, default=1),
    Column("token", JSON, nullable=False),  # what the store said of it: names, scopes, mask
    Column("organisation_id", String(64), nullable=False),
    Column("validity", String(32), nullable=False),
    Column("phase", String(32), nullable=False),  # see scanner/incident.py
    Column("policy_version", Integer),
    Column("opened_at", BigInteger, nullable=False),
    Column("intent_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("sightings", Integer, nullable=False, default=0),
    Column("correlation_id", String(24), nullable=False),  # the scan that opened it
    Column("requested_at", BigInteger),  # a remote store was asked to revoke
    Column("reopened_at", BigInteger),
    # How often its token worked again after people were told of its end.
    Column("reopenings", Integer, nullable=False, default=0, server_default="0"),
    *_work_columns(),
    UniqueConstraint("store", "token_id", "generation"),
    Index("incidents_work", "state", "available_at"),
    _suspects("incidents"),
)

sightings = Table(
    "sightings",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("incident_id", ForeignKey("incidents.id")),  # null: the store does not know the token
    Column("scan_id", ForeignKey("scans.id"), nullable=False),
    Column("repository_id", ForeignKey("repositories.id"), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("fingerprint_key", String(64), nullable=False),
    Column("pattern", String(100), nullable=False),
    Column("validity", String(32), nullable=False),
    Column("checksum", String(16), nullable=False),
    Column("encoding", String(32), nullable=False),
    Column("object_id", String(64), nullable=False),
    Column("object_kind", String(8), nullable=False),
    Column("path", String(1000), nullable=False),  # masked; "" when not in a file
    Column("commit", String(64)),
    Column("committed_at", BigInteger),
    Column("line", Integer, nullable=False),
    Column("column", Integer, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    UniqueConstraint("repository_id", "object_id", "path", "start", "pattern"),
    Index("sightings_incident", "incident_id"),
    Index("sightings_fingerprint", "fingerprint"),
)
Index(
    "sightings_unknown",
    sightings.c.seen_at,
    sqlite_where=sightings.c.incident_id.is_(None),
    postgresql_where=sightings.c.incident_id.is_(None),
)

# Digests of tokens that the built-in store did not know: one that is imported later is found here.
unknown_digests = Table(
    "unknown_digests",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("sighting_id", ForeignKey("sightings.id"), primary_key=True),
    Index("unknown_digests_sighting", "sighting_id"),
)

# Raw tokens that must wait (law 1), one row a token and scan; `sealed` is wiped with the verdict.
sealed_candidates = Table(
    "sealed_candidates",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("cause", String(24), nullable=False),
    Column("scan_id", ForeignKey("scans.id"), nullable=False),
    Column("incident_id", ForeignKey("incidents.id")),
    Column("store", String(64), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("fingerprint_key", String(64), nullable=False),
    Column("places", JSON, nullable=False),
    Column("sealed", LargeBinary),
    Column("seal_key", String(64), nullable=False),
    Column("sealed_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("asked", Integer, nullable=False, default=0),
    *_work_columns(),
    UniqueConstraint("scan_id", "fingerprint", "cause"),
    Index("sealed_candidates_work", "state", "available_at"),
    _suspects("sealed_candidates"),
    Index("sealed_candidates_incident", "incident_id"),
)

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

outbox = Table(
    "outbox",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("incident_id", ForeignKey("incidents.id")),
    Column("kind", String(32), nullable=False),
    Column("dedupe", String(100), nullable=False, unique=True),
    Column("notice", JSON, nullable=False),
    Column("subject", String(400)),
    Column("created_at", BigInteger, nullable=False),
    Column("sent_at", BigInteger),
    *_work_columns(),
    Index("outbox_work", "state", "available_at"),
    _suspects("outbox"),
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
