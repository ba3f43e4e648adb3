"""What several tables have in common."""

from __future__ import annotations

import secrets

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, text

from scanner.db.dialect import String

metadata = MetaData()


def new_id() -> str:
    """A fresh row id: 96 random bits as hex."""
    return secrets.token_hex(12)


# Work that did not come back is rare, and must be found among much that never went out.
SUSPECT = "state = 'pending' AND attempts > 0"
UNFINISHED = "state IN ('pending', 'running')"  # a watch has many scans, and hardly one of these


def suspects(table: str) -> Index:
    """An index of the work that did not come back."""
    where = text(SUSPECT)
    name, columns = f"{table}_suspects", ("state", "available_at")
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


def work_columns() -> list[Column[object]]:
    """The columns by which rows are claimed."""
    return [
        Column("state", String(24), nullable=False),
        Column("attempts", Integer, nullable=False, default=0),
        Column("retries", Integer, nullable=False, default=0, server_default="0"),
        Column("available_at", BigInteger, nullable=False),
        Column("lease_until", BigInteger),
        Column("fence", Integer, nullable=False, default=0),
        Column("error", String(500)),
    ]
