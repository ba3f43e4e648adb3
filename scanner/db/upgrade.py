"""Bring a database to the schema this version needs, and tell whether it is there."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from scanner.db.engine import reader


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def upgrade_database(engine: Engine) -> None:
    """Apply every missing migration in one transaction; safe to run twice and at once."""
    with engine.begin() as connection:
        command.upgrade(_config(connection), "head")


def is_current(engine: Engine) -> bool:
    """True when the database is at this version's newest migration."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    with reader(engine).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() == head
