"""What SQLite and PostgreSQL spell differently, in one place; the rest is SQLAlchemy's to know."""

from __future__ import annotations

from sqlalchemy import BigInteger, Connection, Integer, Table, text
from sqlalchemy.dialects import postgresql, sqlite

POSTGRESQL, SQLITE = "postgresql", "sqlite"

# A primary key that the database counts up: SQLite does so for INTEGER alone.
Counter = BigInteger().with_variant(Integer, SQLITE)

_LOCK_SPACE = 0x70617472  # "patr": our advisory locks, apart from another application's
UPGRADE_LOCK, SEAL_LOCK = 1, 2


def upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that may say what to do about a row that is there already."""
    if connection.dialect.name == POSTGRESQL:
        return postgresql.insert(table)
    return sqlite.insert(table)


def lock_alone(connection: Connection, lock: int) -> None:
    """Wait until no other transaction holds `lock`, and hold it until this one ends.

    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == POSTGRESQL:
        connection.execute(
            text("SELECT pg_advisory_xact_lock(:space, :lock)"),
            {"space": _LOCK_SPACE, "lock": lock},
        )
