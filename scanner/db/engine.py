"""The database engine: durable by default, one short transaction at a time.

SQLite runs in WAL mode with `synchronous=FULL`, so that a committed row survives a power cut, and
every writing transaction begins with BEGIN IMMEDIATE, so that two workers queue instead of failing
half-way with a stale snapshot. PostgreSQL waits for the disk at each commit, whatever the server's
or the role's own setting; its workers do not queue, they claim around each other.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import (
    ArgumentError,
    InterfaceError,
    InvalidatePoolError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.pool import ConnectionPoolEntry

from scanner.db.dialect import POSTGRESQL, SQLITE
from scanner.errors import ConfigurationError
from scanner.keyring import prepare_data_dir

# The database is at fault, not the row that met it: away, busy, or it broke a deadlock.
DATABASE_AWAY = (OperationalError, InterfaceError)

_BUSY_TIMEOUT_MS = 20_000  # a writer waits this long for another's commit before it fails
_WAL_RETRY_SECONDS = 0.005
_CONNECT_SECONDS = 10
_ANSWER_MS = 30_000  # a server that does not acknowledge for so long is gone
_MOST_CONNECTIONS = 25  # a process; the web process answers 40 requests at once

_USED = "patrol_used"  # when a connection came back to its pool
_ALIVE_SECONDS = 0.5  # after its last use a connection is taken to live

_IDLE_MS = 60_000  # between two statements of a transaction: its process hangs, or its machine died

# PostgreSQL: idle_in_transaction_session_timeout, read_only_sql_transaction.
_AWAY_STATES = frozenset({"25P03", "25006"})

_DURABLE = """SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')"""
# What a process holds that was paused, or whose machine is gone, must not stop all others.
_BOUNDED = f"""SELECT set_config('lock_timeout', '{_BUSY_TIMEOUT_MS}', false),
    set_config('idle_in_transaction_session_timeout', '{_IDLE_MS}', false)"""


def create_database_engine(url: str) -> Engine:
    """Return an engine for `url`. Errors: `ConfigurationError` for what cannot be opened."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == SQLITE:
            return _sqlite_engine(parsed)
        if backend == POSTGRESQL:
            return _postgresql_engine(parsed)
    except (ArgumentError, NoSuchModuleError):
        raise ConfigurationError("PATROL_DATABASE_URL is not a database address.") from None
    raise ConfigurationError(
        "PATROL_DATABASE_URL: Patrol speaks SQLite (sqlite:///path/patrol.db) and PostgreSQL "
        "(postgresql://user@host/patrol)."
    )


def _postgresql_engine(url: URL) -> Engine:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        hide_parameters=True,
        max_overflow=_MOST_CONNECTIONS - 5,
        connect_args={
            "connect_timeout": _CONNECT_SECONDS,
            "tcp_user_timeout": _ANSWER_MS,
            "application_name": "patrol",
            "client_encoding": "utf-8",
            **url.query,
        },
    )
    event.listen(engine, "connect", _configure_postgresql)
    event.listen(engine, "checkout", _ask_after_a_pause)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "handle_error", _hide_values)
    event.listen(engine, "handle_error", _name_what_is_away, retval=True)
    event.listen(engine, "after_cursor_execute", _end_pipeline)
    return engine


def _configure_postgresql(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_DURABLE)
        cursor.execute(_BOUNDED)
    connection.commit()


def _note_use(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info[_USED] = time.monotonic()


def _ask_after_a_pause(connection: Any, record: ConnectionPoolEntry, _fairy: object) -> None:
    """After a restart of the server the pool's connections are dead: one that was not used for a
    moment is asked first, which costs a fifth of a short transaction.

    Raises `InvalidatePoolError`, which makes the pool connect anew.
    """
    if time.monotonic() - record.info.get(_USED, 0.0) < _ALIVE_SECONDS:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except psycopg.OperationalError as error:
        raise InvalidatePoolError from error


def _hide_values(context: ExceptionContext) -> None:
    """Cut what PostgreSQL says in detail from an error: it repeats the rows' values."""
    shown = context.sqlalchemy_exception
    for error in (context.original_exception, shown):
        if error is not None and error.args:
            error.args = (str(error.args[0]).partition("\nDETAIL:")[0], *error.args[1:])


def _name_what_is_away(context: ExceptionContext) -> BaseException | None:
    """Say of a transaction that the server ended, or of one that became a standby, what it is:
    the driver takes them for faults of ours."""
    error = context.original_exception
    if getattr(error, "sqlstate", None) not in _AWAY_STATES:
        return None
    context.is_disconnect = True
    return OperationalError(context.statement, None, error, hide_parameters=True)


def _end_pipeline(connection: Connection, *arguments: Any) -> None:
    """Say something plain: with what the driver sends last after many at once, the server does not
    take the client for a silent one, however long it is."""
    *_, is_many = arguments
    if is_many:
        connection.exec_driver_sql("SELECT 1")


def _sqlite_engine(url: URL) -> Engine:
    if url.database:
        prepare_data_dir(Path(url.database).parent)
    engine = create_engine(
        url, hide_parameters=True, connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000}
    )
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Turn WAL on. For this one step, on a new file, SQLite does not wait for others that do the
    same (processes of a first start), whatever `busy_timeout` says: so we do."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_WAL_RETRY_SECONDS)
        else:
            return


def _begin_immediate(connection: Connection) -> None:
    deferred = connection.get_execution_options().get("patrol_read_only", False)
    connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")


def reader(engine: Engine) -> Engine:
    """The same engine for transactions that only read one moment: they wait for no writer."""
    if engine.dialect.name == POSTGRESQL:
        return _with(engine, isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return _with(engine, patrol_read_only=True)


def single(engine: Engine) -> Engine:
    """The same engine for one statement that only reads: it sees one moment without a transaction
    round it, which would cost a server that is elsewhere two more round trips."""
    if engine.dialect.name == POSTGRESQL:
        return _with(engine, isolation_level="AUTOCOMMIT")
    return reader(engine)


def _with(engine: Engine, **options: Any) -> Engine:
    """The engine with options, made once: that takes longer than a short question."""
    made: dict[tuple[str, ...], Engine] = vars(engine).setdefault("patrol_with_options", {})
    key = tuple(options)
    if key not in made:
        made[key] = engine.execution_options(**options)
    return made[key]
