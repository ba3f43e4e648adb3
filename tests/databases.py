"""Databases for tests: whatever keeps something is tested on SQLite and on PostgreSQL.

A test that takes `database_url` (migrated), `empty_database_url`, or `databases` to make several,
runs once on each. A fixture of a whole module makes its own with `databases.new()`. What is true of
one of them alone says so:

    @on_sqlite        # also as pytestmark = on_sqlite
    def test_a_file_that_is_no_database(...): ...
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from scanner.db.dialect import POSTGRESQL, SQLITE
from scanner.db.engine import create_database_engine
from scanner.db.upgrade import upgrade_database
from tests.servers.postgres import PostgresServer

on_sqlite = pytest.mark.parametrize("databases", [SQLITE], indirect=True)
on_postgresql = pytest.mark.parametrize("databases", [POSTGRESQL], indirect=True)


def drop_guards(connection: Connection) -> None:
    """Take away what keeps events of the audit trail from being changed, as its owner can."""
    if connection.dialect.name == POSTGRESQL:
        for name in ("change", "truncate"):
            connection.exec_driver_sql(f"DROP TRIGGER audit_events_no_{name} ON audit_events")
    else:
        for name in ("update", "delete", "replace"):
            connection.exec_driver_sql(f"DROP TRIGGER audit_events_no_{name}")


class Databases(Protocol):
    """Makes databases of one kind; migrating takes longer than most tests, so they are copies."""

    kind: str  # a dialect's name

    def new(self, folder: Path | None = None, *, migrated: bool = True) -> str:
        """Make a database; returns its address. SQLite's file is `patrol.db` in the folder."""
        ...

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        ...

    def drop_all(self) -> None:
        """Remove all that this made."""
        ...


class SqliteDatabases:
    kind = SQLITE

    def __init__(self, template: Path, new_folder: Callable[[str], Path]) -> None:
        self._template, self._new_folder = template, new_folder

    def new(self, folder: Path | None = None, *, migrated: bool = True) -> str:
        place = folder or self._new_folder("database")
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if migrated:
            shutil.copy(self._template, place / "patrol.db")
        return f"sqlite:///{place / 'patrol.db'}"

    def drop(self, url: str) -> None:
        """Nothing: pytest removes its folders itself, and keeps those of failed tests."""

    def drop_all(self) -> None:
        """Nothing, as `drop`."""


class PostgresDatabases:
    kind = POSTGRESQL

    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server, self._template = server, template
        self._left: set[str] = set()

    def new(self, _folder: Path | None = None, *, migrated: bool = True) -> str:
        name = self._server.create_database(self._template if migrated else None)
        self._left.add(url := self._server.url(name))
        return url

    def drop(self, url: str) -> None:
        name = make_url(url).database
        assert name is not None
        self._server.drop_database(name)
        self._left.discard(url)

    def drop_all(self) -> None:
        for url in tuple(self._left):
            self.drop(url)


def migrate(url: str) -> None:
    """Bring an empty database to this version."""
    engine = create_database_engine(url)
    upgrade_database(engine)
    engine.dispose()


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "patrol.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def _postgres_template(postgres_server: PostgresServer) -> str:
    name = postgres_server.create_database()
    migrate(postgres_server.url(name))
    return name


@pytest.fixture(scope="session")
def databases_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Databases]:
    """Databases of a kind, for a test or fixture that has parameters of its own."""

    def get(kind: str) -> Databases:
        value = request.getfixturevalue  # on demand: a missing PostgreSQL is no matter for SQLite
        if kind == SQLITE:
            return SqliteDatabases(value("_sqlite_template"), tmp_path_factory.mktemp)
        return PostgresDatabases(value("postgres_server"), value("_postgres_template"))

    return get


@pytest.fixture(scope="module", params=[SQLITE, POSTGRESQL])
def databases(
    request: pytest.FixtureRequest, databases_of: Callable[[str], Databases]
) -> Iterator[Databases]:
    """Databases of the kind under test; what is left of them goes with the module."""
    made = databases_of(request.param)
    yield made
    made.drop_all()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """The address of a migrated database that nobody else has."""
    url = databases.new()
    yield url
    databases.drop(url)


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """The address of a database without any table."""
    url = databases.new(migrated=False)
    yield url
    databases.drop(url)
