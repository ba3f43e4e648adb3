"""patrol db."""

from __future__ import annotations

import click

from scanner.commands.common import services
from scanner.db.upgrade import upgrade_database


@click.group()
def db() -> None:
    """Look after the database."""


@db.command()
def upgrade() -> None:
    """Bring the database to this version's schema."""
    built = services()
    upgrade_database(built.engine)
    _ = built.database
    click.echo("The database is up to date.")
