"""Bring a database to the schema this version needs, and tell whether it is there."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from scanner.db.engine import reader
from scanner.errors import ConfigurationError


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def upgrade_database(engine: Engine) -> None:
    """Apply every missing migration in one transaction; safe to run twice and at once.

    Errors: `ConfigurationError` for a database that a newer version has upgraded.
    """
    with engine.begin() as connection:
        config = _config(connection)
        present = MigrationContext.configure(connection).get_current_revision()
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if present is not None and present not in known:
            raise ConfigurationError(
                f"The database is of a newer version (migration {present}); install that version "
                "or restore a back-up."
            )
        command.upgrade(config, "head")


def is_current(engine: Engine) -> bool:
    """True when the database is at this version's newest migration."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    with reader(engine).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() == head
