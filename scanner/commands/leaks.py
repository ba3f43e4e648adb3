"""patrol leaks."""

from __future__ import annotations

import json

import click

from scanner.commands.common import format_option, services, show
from scanner.db import incidents
from scanner.db.engine import reader
from scanner.errors import FinalError


@click.group()
def leaks() -> None:
    """Leaks that were found."""


@leaks.command("list")
@format_option
def list_(style: str) -> None:
    """List leaks, newest first."""
    with reader(services().database).connect() as connection:
        rows = incidents.list_incidents(connection)
    show(rows, style, ("id", "phase", "token", "sightings", "opened_at"))


@leaks.command("show")
@click.argument("incident_id")
@format_option
def show_(incident_id: str, style: str) -> None:
    """Show one leak and its places."""
    with reader(services().database).connect() as connection:
        rows = incidents.list_incidents(connection, incident_id)
        places, total = incidents.list_sightings(connection, incident_id, 100)
    if not rows:
        raise FinalError(f"There is no leak {incident_id}.")
    if style == "json":
        click.echo(json.dumps({**rows[0], "places": places, "places_total": total}, indent=2))
        return
    show([{"field": k, "value": v} for k, v in rows[0].items()], style, ("field", "value"))
    click.echo()
    short = [{**place, "commit": (place["commit"] or "-")[:12]} for place in places]
    show(short, style, ("repository", "path", "line", "commit", "seen_at"))
