"""Empty databases to measure on: SQLite, and a durable PostgreSQL where this machine has one."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Engine

sys.path.insert(0, str(Path(__file__).parents[2]))

from scanner.db.engine import create_database_engine
from scanner.db.upgrade import upgrade_database
from tests.servers.postgres import PostgresServer
from tests.servers.present import place_of


def on_each_database(running: ExitStack) -> Iterator[tuple[str, Engine]]:
    """Yield (name, engine of a migrated database); all of it ends with `running`."""
    folder = running.enter_context(tempfile.TemporaryDirectory())
    yield "SQLite", _migrated(f"sqlite:///{folder}/patrol.db", running)
    if place := place_of("postgresql"):
        postgres = running.enter_context(PostgresServer(place))
        yield "PostgreSQL", _migrated(postgres.url(postgres.create_database()), running)


def _migrated(url: str, running: ExitStack) -> Engine:
    engine = create_database_engine(url)
    running.callback(engine.dispose)
    upgrade_database(engine)
    return engine
