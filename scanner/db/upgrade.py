"""Bring a database to the schema this version needs, and tell whether it is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError, OperationalError

from scanner.db.dialect import UPGRADE_LOCK, lock_alone, wait_for_locks
from scanner.db.engine import reader
from scanner.errors import ConfigurationError

_NOT_ALLOWED = "42501"  # PostgreSQL: insufficient_privilege


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def upgrade_database(engine: Engine) -> None:
    """Apply every missing migration in one transaction; safe to run twice and at once.

    Errors: `ConfigurationError` for a file that is no database, and for a database that a newer
    version has upgraded.
    """
    with refuse_unreadable(), engine.begin() as connection:
        upgrade(connection)


def upgrade(connection: Connection) -> None:
    """The same, within the caller's transaction."""
    wait_for_locks(connection)
    lock_alone(connection, UPGRADE_LOCK)
    config = _config(connection)
    present = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if present is not None and present not in known:
        raise ConfigurationError(
            f"The database is of a newer version (migration {present}); install that version "
            "or restore a back-up."
        )
    command.upgrade(config, "head")


@cache
def _newest() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def has_current_schema(connection: Connection) -> bool:
    """True when the database is at this version's newest migration."""
    return MigrationContext.configure(connection).get_current_revision() == _newest()


def is_current(engine: Engine) -> bool:
    """The same, in a transaction of its own."""
    with reader(engine).connect() as connection:
        return has_current_schema(connection)


@contextmanager
def refuse_unreadable() -> Iterator[None]:
    """Turn what another try cannot mend into a `ConfigurationError`: a file that is no database,
    a user who may not make tables."""
    try:
        yield
    except OperationalError:
        raise  # busy, or away: another time it may be well
    except DatabaseError as error:
        cause = str(error.orig).partition("\n")[0]
        if getattr(error.orig, "sqlstate", None) == _NOT_ALLOWED:
            raise ConfigurationError(
                f"The database refuses its user ({cause}); make the user of PATROL_DATABASE_URL "
                "the owner of the database."
            ) from None
        raise ConfigurationError(
            f"The database cannot be read ({cause}); restore a back-up, or set "
            "PATROL_DATABASE_URL or PATROL_DATA_DIR to another place."
        ) from None
