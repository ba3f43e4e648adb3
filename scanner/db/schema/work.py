"""Work and what comes of it: from a push to a scan, a leak, its incident and the mails."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    UniqueConstraint,
    text,
)

from scanner.db.dialect import String
from scanner.db.schema.columns import UNFINISHED, metadata, suspects, work_columns

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
    *work_columns(),
    UniqueConstraint("hook", "body_digest"),
    UniqueConstraint("watch_id", "due_at"),
    Index("scans_work", "state", "priority", "available_at"),
    suspects("scans"),
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
    *work_columns(),
    UniqueConstraint("store", "token_id", "generation"),
    Index("incidents_work", "state", "available_at"),
    suspects("incidents"),
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
    *work_columns(),
    UniqueConstraint("scan_id", "fingerprint", "cause"),
    Index("sealed_candidates_work", "state", "available_at"),
    suspects("sealed_candidates"),
    Index("sealed_candidates_incident", "incident_id"),
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
    *work_columns(),
    Index("outbox_work", "state", "available_at"),
    suspects("outbox"),
)
