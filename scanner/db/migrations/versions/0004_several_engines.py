"""Lanes of work, sealed candidates, a blob ledger, the life of a token, signs of life"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("scans", sa.Column("priority", sa.Integer(), nullable=False, server_default="1"))
    op.execute("UPDATE scans SET priority = 3 WHERE source = 'watch'")
    op.drop_index("scans_work", "scans")
    op.create_index("scans_work", "scans", ["state", "priority", "available_at"])

    op.add_column("organisations", sa.Column("disabled_at", sa.BigInteger()))
    op.add_column(
        "owners", sa.Column("kind", sa.String(length=8), nullable=False, server_default="person")
    )
    op.add_column("tokens", sa.Column("predecessor_id", sa.String(length=24)))
    op.add_column("tokens", sa.Column("external_id", sa.String(length=200)))
    op.create_index("tokens_listed", "tokens", ["created_at", "id"])
    op.create_index("tokens_owned", "tokens", ["organisation_id", "owner_id", "created_at", "id"])
    op.create_index(
        "tokens_predecessor",
        "tokens",
        ["predecessor_id"],
        unique=True,
        sqlite_where=sa.text("predecessor_id IS NOT NULL"),
        postgresql_where=sa.text("predecessor_id IS NOT NULL"),
    )
    op.create_index(
        "sightings_unknown",
        "sightings",
        ["seen_at"],
        sqlite_where=sa.text("incident_id IS NULL"),
        postgresql_where=sa.text("incident_id IS NULL"),
    )
    op.create_table(
        "digest_chains",
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("links", sa.String(length=4096)),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id"),
    )
    op.execute(
        "INSERT INTO digest_chains (key_id, created_at) SELECT key_id, MIN(created_at) "
        "FROM tokens GROUP BY key_id"
    )
    op.create_table(
        "unknown_digests",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("sighting_id", sa.String(length=24), nullable=False),
        sa.ForeignKeyConstraint(["sighting_id"], ["sightings.id"]),
        sa.PrimaryKeyConstraint("digest", "key_id", "sighting_id"),
    )
    op.create_index("unknown_digests_sighting", "unknown_digests", ["sighting_id"])

    op.add_column("incidents", sa.Column("requested_at", sa.BigInteger()))
    op.add_column("incidents", sa.Column("reopened_at", sa.BigInteger()))
    op.add_column(
        "incidents", sa.Column("reopenings", sa.Integer(), nullable=False, server_default="0")
    )
    op.create_table(
        "sealed_candidates",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("cause", sa.String(length=24), nullable=False),
        sa.Column("scan_id", sa.String(length=24), nullable=False),
        sa.Column("incident_id", sa.String(length=24)),
        sa.Column("store", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("fingerprint_key", sa.String(length=64), nullable=False),
        sa.Column("places", sa.JSON(), nullable=False),
        sa.Column("sealed", sa.LargeBinary()),
        sa.Column("seal_key", sa.String(length=64), nullable=False),
        sa.Column("sealed_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("available_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger()),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(length=500)),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"]),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("scan_id", "fingerprint", "cause"),
    )
    op.create_index("sealed_candidates_work", "sealed_candidates", ["state", "available_at"])
    op.create_index("sealed_candidates_incident", "sealed_candidates", ["incident_id"])
    op.add_column("scans", sa.Column("seal_key", sa.String(length=64)))

    op.create_table(
        "blob_ledger",
        sa.Column("ruleset", sa.String(length=64), nullable=False),
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("scanned_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("ruleset", "object_id"),
    )
    op.create_index("blob_ledger_age", "blob_ledger", ["scanned_at"])
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )

    op.create_table(
        "quotas",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("window", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )

    op.create_table(
        "alarm_turns",
        sa.Column("topic", sa.String(length=32), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic"),
    )

    # Also for organisations of other stores, which have no row here.
    op.execute("CREATE TABLE policies_before AS SELECT * FROM policies")
    op.drop_table("policies")
    op.create_table(
        "policies",
        sa.Column("store", sa.String(length=64), nullable=False, server_default="built-in"),
        sa.Column("organisation_id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("auto_revoke", sa.Boolean(), nullable=False),
        sa.Column("changed_by", sa.String(length=200), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("store", "organisation_id", "version"),
    )
    op.execute(
        "INSERT INTO policies (organisation_id, version, auto_revoke, changed_by, changed_at) "
        "SELECT organisation_id, version, auto_revoke, changed_by, changed_at FROM policies_before"
    )
    op.drop_table("policies_before")

    op.create_index(
        "scanned_heads_newest", "scanned_heads", ["repository_id", "ruleset", "scanned_at"]
    )
    where = sa.text("state IN ('pending', 'running')")
    op.create_index(
        "scans_of_watch", "scans", ["watch_id"], sqlite_where=where, postgresql_where=where
    )

    where = sa.text("state = 'pending' AND attempts > 0")
    for table in ("scans", "incidents", "sealed_candidates", "outbox"):
        op.create_index(
            f"{table}_suspects",
            table,
            ["state", "available_at"],
            sqlite_where=where,
            postgresql_where=where,
        )
