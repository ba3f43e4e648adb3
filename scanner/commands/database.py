"""patrol db."""

from __future__ import annotations

from pathlib import Path

import click
from sqlalchemy import Engine

from scanner.commands.common import services
from scanner.db.copy import CopiedTable, UnfitError, copy_database
from scanner.db.engine import create_database_engine
from scanner.db.upgrade import upgrade_database
from scanner.errors import ConfigurationError
from scanner.keyring import read_secret
from scanner.text import printable


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


@db.command()
@click.option("--to", "address", metavar="URL", help="the new database, such as postgresql://…")
@click.option(
    "--to-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="a file that holds the address: a password in it stays out of the list of processes",
)
def copy(*, address: str | None, to_file: Path | None) -> None:
    """Move everything to another database, such as PostgreSQL, and verify the audit trail there.

    Stop Patrol first. All of it arrives, or nothing; the present database stays as it is.
    """
    if (address is None) == (to_file is None):
        raise click.UsageError("Name the new database: --to URL or --to-file FILE.")
    if to_file is not None:
        address = read_secret(to_file, f"--to-file: {to_file}").strip()
    built = services()
    try:
        target = create_database_engine(address or "")
    except ConfigurationError as error:
        said = str(error).replace("PATROL_DATABASE_URL", "The new database's address")
        raise ConfigurationError(said) from None
    if _place_of(target) == _place_of(built.engine):
        raise click.UsageError("That is the database Patrol uses now.")
    try:
        _copy(built.engine, target)
    finally:
        target.dispose()


def _copy(source: Engine, target: Engine) -> None:
    click.echo(f"From {_shown(source)}\n  to {_shown(target)}\n")
    rows = 0

    def arrived(table: CopiedTable) -> None:
        nonlocal rows
        rows += table.rows
        click.echo(f"  {table.rows:>10,}  {table.name:<20} {table.digest[:16]}")

    try:
        trail = copy_database(source, target, arrived)
    except UnfitError as error:
        for found in error.misfits:
            place = f"{found.table}.{found.column}, row {found.row}"
            click.echo(f"  {printable(place)}: {found.reason}", err=True)
        raise
    click.echo(
        f"\n{rows:,} rows arrived as they were sent. The audit trail verifies on both sides: "
        f"{trail.sealed:,} sealed, {trail.unsealed:,} waiting.\nNewest seal: {trail.head}\n\n"
        "Now set PATROL_DATABASE_URL (or PATROL_DATABASE_URL_FILE) to the new address, keep the "
        "keys as they are, and start Patrol. The old database is as it was."
    )
    for problem in trail.problems:
        click.echo(f"PROBLEM, here and there: {problem}")
    if trail.problems:
        raise click.exceptions.Exit(1)


def _shown(engine: Engine) -> str:
    return engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=True)


def _place_of(engine: Engine) -> tuple[object, ...]:
    url = engine.url
    if engine.dialect.name == "sqlite":
        return ("sqlite", Path(url.database or "").resolve())
    return (url.host, url.port or 5432, url.database, url.query)
