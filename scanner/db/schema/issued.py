"""The built-in store: whose tokens there are, the tokens, and the keys of their digests."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Table, UniqueConstraint

from scanner.db.dialect import String
from scanner.db.schema.columns import metadata

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
