"""patrol watch."""

from __future__ import annotations

import re

import click

from scanner.commands.common import actor, format_option, services, show
from scanner.db import watches
from scanner.db.engine import reader
from scanner.sources.github_push import is_repository_name

_host_option = click.option("--host", help="where several hosts have a repository of that name")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """Return the seconds of "30s", "5m", "6h" or "1d"."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None or int(match[1]) == 0:
        raise click.UsageError("--every is a number and s, m, h or d, such as 6h")
    return int(match[1]) * _UNITS[match[2]]


def _period(length: float) -> str:
    """Return "6h" for 21600: the largest unit that fits."""
    unit = next(unit for unit in reversed(_UNITS) if length % _UNITS[unit] == 0 or unit == "s")
    return f"{length / _UNITS[unit]:g}{unit}"


@click.group()
def watch() -> None:
    """Repositories that are scanned on a schedule."""


@watch.command()
@click.argument("repository")
@click.option("--every", default="6h", show_default=True)
def add(repository: str, every: str) -> None:
    """Watch OWNER/NAME; the first scan reads its whole history."""
    if not is_repository_name(repository):
        raise click.UsageError("the repository is OWNER/NAME")
    period = seconds(every)
    built = services()
    if built.matcher.redact(repository) != repository:
        raise click.UsageError("the repository's name holds a token, which would be stored")
    with built.database.begin() as connection:
        host = built.settings.github_url.rstrip("/")
        watches.add_watch(connection, host, repository, period, actor())
    click.echo(f"Watching {repository} every {every}.")


@watch.command("list")
@format_option
def list_(style: str) -> None:
    """List watched repositories."""
    with reader(services().database).connect() as connection:
        rows = watches.list_watches(connection)
    rows = [{**row, "every": _period(row["every_seconds"])} for row in rows]
    show(rows, style, ("repository", "every", "next_due", "host"))


@watch.command()
@click.argument("repository")
@_host_option
def remove(repository: str, host: str | None) -> None:
    """Stop watching."""
    with services().database.begin() as connection:
        watches.remove_watch(connection, repository, actor(), host)
    click.echo(f"{repository} is no longer watched.")


@watch.command()
@click.argument("repository")
@_host_option
def run(repository: str, host: str | None) -> None:
    """Scan now; a running worker takes it within a second."""
    with services().database.begin() as connection:
        watches.run_watch_now(connection, repository, host)
    click.echo(f"{repository} will be scanned now.")
