"""patrol doctor: each line says what was looked at and, when it is wrong, what to do."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

import click

from scanner.bootstrap import Services
from scanner.commands.checks import CHECKS, Concern
from scanner.commands.common import format_option, services, trouble
from scanner.db import leases
from scanner.db.vitals import WORK
from scanner.errors import PatrolError
from scanner.text import printable

_WIDTH = 80
_MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}


@click.command()
@click.option("--retry", is_flag=True, help="first put all that is parked back to work")
@format_option
def doctor(*, retry: bool, style: str) -> None:
    """Check every connection and say what to do; exit code 2 when something is wrong."""
    built = services()
    if retry:
        with built.database.begin() as connection:
            count = sum(leases.retry_parked(connection, table) for table in WORK.values())
        click.echo(f"{count} parked rows go back to work.", err=style == "json")
    found = []
    for one in _findings(built):
        found.append(one)
        if style == "table":  # at once: some of them take seconds
            click.echo(_line(one))
    if style == "json":
        click.echo(json.dumps(found, indent=2))
    if any(one["state"] == "fail" for one in found):
        raise click.exceptions.Exit(2)


def _findings(built: Services) -> Iterator[dict[str, str]]:
    failed: dict[str, str] = {}  # a database that is away fails many
    for name, check in CHECKS:
        try:
            said = check(built)
            state = "warn" if isinstance(said, Concern) else "ok"
        except Exception as error:
            why = str(error) if isinstance(error, PatrolError) else trouble(error)
            if why is None:
                raise
            first = failed.setdefault(why, name)
            said, state = why if first == name else f"the same as {first}", "fail"
        yield {"name": name, "state": state, "message": printable(said)}


def _line(finding: dict[str, str]) -> str:
    return textwrap.fill(
        f"{_MARKS[finding['state']]:<5} {finding['name']}: {finding['message']}",
        _WIDTH,
        subsequent_indent=" " * 6,
        break_long_words=False,
        break_on_hyphens=False,
    )
