"""What SQLite keeps and PostgreSQL refuses, found before anything is copied.

SQLite holds any value in any column, and text of any length; PostgreSQL holds a column to its type.
Patrol writes what fits, but other hands and earlier versions may not have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

_INT32 = range(-(1 << 31), 1 << 31)
# A B-tree takes 2,704 bytes a key in pages of 8 KiB, with each column's header and padding.
_KEY_BYTES, _COLUMN_BYTES = 2_700, 8


@dataclass(frozen=True, slots=True)
class Misfit:
    """One value that cannot be copied, and why; the value itself is not in it."""

    table: str
    column: str
    row: str  # its primary key
    reason: str


def misfits(connection: Connection, metadata: MetaData) -> Iterator[Misfit]:
    """Yield what of a SQLite database PostgreSQL would refuse. Reads all of it once."""
    for table in metadata.sorted_tables:
        yield from _of_table(connection, table)
    for name, rowid, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield Misfit(name, "", f"rowid {rowid}", f"names a row that is not in {parent}")


def _of_table(connection: Connection, table: Table) -> Iterator[Misfit]:
    quote = connection.dialect.identifier_preparer.quote
    names = [column.name for column in table.columns]
    keys = _indexed(table)
    driver: Any = connection.connection.driver_connection
    # The driver's own way gives up at the first text that is no UTF-8.
    usual, driver.text_factory = driver.text_factory, _decode
    try:
        rows = driver.execute(
            f"SELECT {', '.join(map(quote, names))} FROM {quote(table.name)}"  # noqa: S608
        )
        for values in rows:
            row = dict(zip(names, values, strict=True))
            where = ", ".join(str(row[column.name]) for column in table.primary_key)
            for column in table.columns:
                reason = _fault(column.type, row[column.name])
                if reason:
                    yield Misfit(table.name, column.name, where, reason)
            for key in keys:
                if sum(_size(row[name]) for name in key) > _KEY_BYTES:
                    reason = f"is longer than {_KEY_BYTES} bytes, too long for an index"
                    yield Misfit(table.name, ", ".join(key), where, reason)
    finally:
        driver.text_factory = usual


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _indexed(table: Table) -> list[list[str]]:
    unique = [c.columns for c in table.constraints if isinstance(c, UniqueConstraint)]
    indexed = [index.columns for index in table.indexes]
    keyed = (table.primary_key.columns, *unique, *indexed)
    return [[column.name for column in columns] for columns in keyed]


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape")) + _COLUMN_BYTES
    return _COLUMN_BYTES


def _fault(kind: TypeEngine[Any], value: Any) -> str | None:
    if isinstance(kind, TypeDecorator):
        kind = kind.impl_instance
    if value is None:
        return None  # SQLite has NOT NULL, too
    if isinstance(kind, JSON) and isinstance(value, int | float):
        # SQLite keeps a document that is a bare number as one, and reads it as text again.
        fits, wanted = isfinite(value), "a number of JSON"
    elif isinstance(kind, String | JSON):
        return _fault_of_text(kind, value)
    elif isinstance(kind, LargeBinary):
        fits, wanted = isinstance(value, bytes), "bytes"
    elif isinstance(kind, Boolean):
        fits, wanted = value in (0, 1), "true or false"
    elif isinstance(kind, BigInteger):
        fits, wanted = isinstance(value, int), "a whole number"
    elif isinstance(kind, Integer):
        fits, wanted = isinstance(value, int) and value in _INT32, "a whole number of 32 bits"
    else:
        raise NotImplementedError(f"a column of type {kind!r} is copied by nobody yet")
    return None if fits else f"is not {wanted}"


def _fault_of_text(kind: String | JSON, value: Any) -> str | None:
    if not isinstance(value, str):
        return "is no text"
    if "\0" in value:
        return "holds a NUL character"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if isinstance(kind, JSON):
        return None if _is_json(value) else "is no JSON"
    if kind.length is not None and len(value) > kind.length:
        return f"has {len(value)} characters, {kind.length} fit"
    return None


def _is_json(value: str) -> bool:
    def refuse(_name: str) -> None:  # NaN and Infinity are Python's own
        raise ValueError

    try:
        json.loads(value, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True
