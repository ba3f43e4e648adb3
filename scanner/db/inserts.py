"""Very many rows at once, the fastest way that each database has."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import errors
from sqlalchemy import Connection, Table
from sqlalchemy.exc import IntegrityError

from scanner.db.dialect import POSTGRESQL
from scanner.errors import ConflictError

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"})
_NULL = r"\N"
_CACHE_KIB = 65_536  # SQLite's own two mebibytes hold no index of a million rows
Value = str | int | None


def insert_many(
    connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Value]]
) -> None:
    """Insert rows of texts and whole numbers (JSON as text), all or none.

    Errors: `ConflictError` when one of them is there already.
    """
    if not rows:
        return
    try:
        if connection.dialect.name == POSTGRESQL:
            _copy(connection, table, columns, rows)
        else:
            connection.exec_driver_sql(f"PRAGMA cache_size = -{_CACHE_KIB}")
            named = [table.c[name].name for name in columns]
            marks = ", ".join("?" * len(named))
            statement = f"INSERT INTO {table.name} ({', '.join(named)}) VALUES ({marks})"  # noqa: S608 (names of ours)
            connection.exec_driver_sql(statement, [tuple(row) for row in rows])
    except (IntegrityError, errors.UniqueViolation):
        raise ConflictError("A row is there already.") from None


def count_anew(connection: Connection, *tables: Table) -> None:
    """Let PostgreSQL look at tables that have grown very much: until it has, it plans look-ups as
    if they were empty, and reads others from end to end. SQLite's plans do not depend on it."""
    if connection.dialect.name == POSTGRESQL:
        names = ", ".join(table.name for table in tables)
        connection.exec_driver_sql(f"ANALYZE {names}")


def _copy(
    connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Value]]
) -> None:
    names = ", ".join(table.c[name].name for name in columns)
    lines = _plain(columns, rows) or "\n".join("\t".join(map(_text, row)) for row in rows)
    driver = connection.connection.driver_connection
    if driver is None:
        raise TypeError("the connection is closed")
    with (
        driver.cursor() as cursor,
        cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy,
    ):
        copy.write(f"{lines}\n".encode())


def _plain(columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> str | None:
    """The rows as they are, if nothing in them has to be escaped: nearly always, and to look once
    at all of them takes a fifth of looking at each."""
    nulls = sum(row.count(None) for row in rows)
    lines = "\n".join(
        "\t".join([_NULL if value is None else str(value) for value in row]) for row in rows
    )
    seen = tuple(map(lines.count, "\t\n\r\\"))
    return lines if seen == ((len(columns) - 1) * len(rows), len(rows) - 1, 0, nulls) else None


def _text(value: Value) -> str:
    if value is None:
        return _NULL
    return str(value).translate(_ESCAPES) if isinstance(value, str) else str(value)
