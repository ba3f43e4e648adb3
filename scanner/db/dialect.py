"""What SQLite and PostgreSQL spell differently, in one place; the rest is SQLAlchemy's to know."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, Table, TypeDecorator, text
from sqlalchemy import String as AnyString
from sqlalchemy.dialects import postgresql, sqlite

POSTGRESQL, SQLITE = "postgresql", "sqlite"

# A primary key that the database counts up: SQLite does so for INTEGER alone.
Counter = BigInteger().with_variant(Integer, SQLITE)


class String(TypeDecorator[str]):
    """Text of a length, in which U+FFFD stands for NUL: PostgreSQL stores none.

    What strangers name (a ref, a path, an id that they ask for) may hold one.
    """

    impl = AnyString
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Any) -> str | None:
        """Replace what cannot be stored."""
        return None if value is None else value.replace("\0", "\ufffd")


_LOCK_SPACE = 0x70617472  # "patr": our advisory locks, apart from another application's
UPGRADE_LOCK, SEAL_LOCK = 1, 2


def upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that may say what to do about a row that is there already.

    Its result's `rowcount` tells whether it did anything.
    """
    insert = postgresql.insert if connection.dialect.name == POSTGRESQL else sqlite.insert
    return insert(table).execution_options(preserve_rowcount=True)


def wait_for_locks(connection: Connection) -> None:
    """Let this transaction wait for locks as long as it takes, whatever the engine's bound is."""
    if connection.dialect.name == POSTGRESQL:
        connection.execute(text("SET LOCAL lock_timeout = 0"))


def try_lock_alone(connection: Connection, lock: int) -> bool:
    """Hold `lock` until the transaction ends; False: another one holds it. See `lock_alone`."""
    if connection.dialect.name != POSTGRESQL:
        return True
    return bool(
        connection.execute(
            text("SELECT pg_try_advisory_xact_lock(:space, :lock)"),
            {"space": _LOCK_SPACE, "lock": lock},
        ).scalar_one()
    )


def lock_alone(connection: Connection, lock: int) -> None:
    """Wait until no other transaction holds `lock`, and hold it until this one ends.

    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == POSTGRESQL:
        connection.execute(
            text("SELECT pg_advisory_xact_lock(:space, :lock)"),
            {"space": _LOCK_SPACE, "lock": lock},
        )
