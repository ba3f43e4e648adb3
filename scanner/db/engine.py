"""The database engine: durable by default, one short transaction at a time.

SQLite runs in WAL mode with `synchronous=FULL`, so that a committed row survives a power cut, and
every writing transaction begins with BEGIN IMMEDIATE, so that two workers queue instead of failing
half-way with a stale snapshot.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from scanner.errors import ConfigurationError
from scanner.settings import prepare_data_dir

_BUSY_TIMEOUT_MS = 20_000  # a writer waits this long for another's commit before it fails
_WAL_RETRY_SECONDS = 0.005


def create_database_engine(url: str) -> Engine:
    """Return an engine for `url`. Errors: `ConfigurationError` for what cannot be opened."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            raise ConfigurationError(
                "PATROL_DATABASE_URL: this version speaks SQLite only (sqlite:///path/patrol.db)."
            )
        if parsed.database:
            prepare_data_dir(Path(parsed.database).parent)
        engine = create_engine(
            url, hide_parameters=True, connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000}
        )
    except (ArgumentError, NoSuchModuleError):
        raise ConfigurationError("PATROL_DATABASE_URL is not a database address.") from None
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
    """The same engine for transactions that only read: they do not queue behind a writer."""
    return engine.execution_options(patrol_read_only=True)
