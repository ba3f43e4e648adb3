"""patrol audit."""

from __future__ import annotations

import click

from scanner.commands.common import format_option, services, show
from scanner.db import audit as trail
from scanner.db.engine import reader


@click.group()
def audit() -> None:
    """The audit trail."""


@audit.command("list")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=200, show_default=True)
@format_option
def list_(limit: int, style: str) -> None:
    """List the newest events, oldest first."""
    with reader(services().database).connect() as connection:
        rows = trail.list_events(connection, limit=limit)
    show(rows, style, ("at", "action", "actor", "incident_id"))


@audit.command()
def verify() -> None:
    """Recompute the hash chain; exit code 1 when something was changed or removed."""
    with reader(services().database).connect() as connection:
        result = trail.verify(connection)
    for problem in result.problems:
        click.echo(f"PROBLEM: {problem}")
    click.echo(f"{result.sealed} sealed events, {result.unsealed} not sealed yet.")
    click.echo(f"Newest seal: {result.head}")
    if result.problems:
        raise click.exceptions.Exit(1)
    click.echo("The trail is whole.")
