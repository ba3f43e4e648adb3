"""A database as a whole: held alone, read and filled a table at a time.

What SQLite and PostgreSQL do differently about this, for `copy.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import (
    JSON,
    Connection,
    Engine,
    Table,
    Text,
    cast,
    event,
    func,
    select,
    text,
)
from sqlalchemy.exc import OperationalError

from scanner.db.dialect import POSTGRESQL, SQLITE
from scanner.db.schema import metadata
from scanner.errors import ConfigurationError, FinalError

Row = tuple[Any, ...]

_BATCH = 1_000  # rows held at once
_IN_USE = (
    "Something still uses the database that is to be copied; stop patrol up, or web, workers and "
    "beat, then repeat."
)
_OTHERS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid() AND application_name = 'patrol'"
)


@contextmanager
def alone(engine: Engine, seconds: float) -> Iterator[Connection]:
    """A transaction on a database that nobody else has open until it ends.

    The engine itself must have no open connection, and is for nothing else afterwards. Errors:
    `ConfigurationError` when others still have it open after `seconds`.
    """
    if engine.dialect.name == SQLITE:
        event.listen(engine, "connect", partial(_exclude_others, seconds), insert=True)
    with engine.begin() as connection:
        if engine.dialect.name == POSTGRESQL:
            if connection.scalar(_OTHERS):
                raise ConfigurationError(_IN_USE)
            connection.execute(_lock_all("SHARE"))
        yield connection


def _exclude_others(seconds: float, connection: Any, _record: Any) -> None:
    """Hold the file alone. In WAL mode this fails while any process merely has it open."""
    connection.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("SELECT count(*) FROM sqlite_master")
    except connection.OperationalError:
        raise ConfigurationError(_IN_USE) from None


def hold(connection: Connection, seconds: float) -> None:
    """Keep others from writing, and be patient with oneself, until the transaction ends.

    Errors: `ConfigurationError` when others do not let go within `seconds`.
    """
    if connection.dialect.name != POSTGRESQL:
        return  # one writer at a time anyway
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(text(f"SET LOCAL {setting} = 0"))
    connection.execute(text(f"SET LOCAL lock_timeout = {round(seconds * 1000)}"))
    try:
        connection.execute(_lock_all("EXCLUSIVE"))
    except OperationalError as error:
        if not isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise
        raise ConfigurationError(
            "Something works on the database that is to be filled; stop it, then repeat."
        ) from None


def _lock_all(mode: str) -> Any:
    return text(f"LOCK TABLE {', '.join(metadata.tables)} IN {mode} MODE")


@contextmanager
def without_triggers(connection: Connection) -> Iterator[None]:
    """Switch our triggers off; those that hold foreign keys stay."""
    if connection.dialect.name == POSTGRESQL:
        for name in metadata.tables:
            connection.execute(text(f"ALTER TABLE {name} DISABLE TRIGGER USER"))
        yield
        for name in metadata.tables:
            connection.execute(text(f"ALTER TABLE {name} ENABLE TRIGGER USER"))
        return
    made = connection.execute(
        text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    ).all()
    for name, _ in made:
        connection.exec_driver_sql(f"DROP TRIGGER {name}")
    yield
    for _, statement in made:
        connection.exec_driver_sql(statement)


def read(connection: Connection, table: Table) -> Iterator[Row]:
    """All rows, a batch in memory at a time. JSON comes as text, so that not a space changes."""
    columns = (
        cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column
        for column in table.columns
    )
    return map(tuple, connection.execute(select(*columns).execution_options(yield_per=_BATCH)))


def write(connection: Connection, table: Table, rows: Iterator[Row]) -> None:
    """Insert what `read` gave. Errors: `FinalError` when PostgreSQL does not take it."""
    if connection.dialect.name == POSTGRESQL:
        _write_postgresql(connection, table, rows)
    else:
        _write_sqlite(connection, table, rows)


def _write_postgresql(connection: Connection, table: Table, rows: Iterator[Row]) -> None:
    driver: Any = connection.connection.driver_connection
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table.name),
        sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns),
    )
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as arriving:
            for row in rows:
                arriving.write_row(row)
    except psycopg.Error as error:
        said = error.diag.message_primary or str(error).strip().partition("\n")[0]
        raise FinalError(
            f"PostgreSQL did not take {table.name} ({said}); nothing was kept."
        ) from None
    connection.execute(text(f"ANALYZE {table.name}"))  # or the first look-ups are slow


def _write_sqlite(connection: Connection, table: Table, rows: Iterator[Row]) -> None:
    quote = connection.dialect.identifier_preparer.quote
    names = ", ".join(quote(column.name) for column in table.columns)
    marks = ", ".join("?" for _ in table.columns)
    statement = f"INSERT INTO {quote(table.name)} ({names}) VALUES ({marks})"  # noqa: S608
    for first in rows:
        connection.exec_driver_sql(statement, [first, *islice(rows, _BATCH - 1)])


def continue_counters(connection: Connection) -> None:
    """Let what PostgreSQL counts up go on behind what is there; SQLite does so by itself."""
    if connection.dialect.name != POSTGRESQL:
        return
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None:
            continue
        counter = connection.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
        highest = connection.scalar(select(func.max(column)))
        if counter and highest is not None:
            connection.execute(select(func.setval(counter, highest)))
