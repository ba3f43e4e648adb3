"""What commands share: the list format, and services with an upgraded database."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from scanner.bootstrap import Services
from scanner.settings import load_settings
from scanner.stores.pages import MOST_ROWS
from scanner.text import printable

format_option = click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True
)


_TIMES = frozenset({"at", "opened_at", "seen_at", "changed_at", "next_due"})


def services() -> Services:
    """Services from the environment, closed when the command ends."""
    built = Services(load_settings())
    click.get_current_context().call_on_close(built.close)
    return built


def trouble(error: Exception) -> str | None:
    """Say in one sentence what the database or the disk refused; None: the fault is ours."""
    if isinstance(error, SQLAlchemyError):
        said = str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__
        cause = said.strip().partition("\n")[0]
        return f"The database did not answer ({cause}); try again, or run: patrol doctor"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'The system'}: {error.strerror}."
    return None


def actor() -> str:
    """Who acts, for the audit trail."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user may have no name
        return f"cli:{os.getuid()}"


def show(rows: Sequence[Mapping[str, Any]], style: str, columns: Sequence[str]) -> None:
    """Print rows as a table of some columns, or all of it as JSON."""
    if style == "json":
        click.echo(json.dumps(list(rows), indent=2))
        return
    if not rows:
        click.echo("None.")
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        # What is copied or compared stays on one line; the rest folds.
        whole = column == "id" or column.endswith("_id") or column in _TIMES
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(_shown(column, row[column]) for column in columns))
    Console(markup=False, emoji=False, highlight=False).print(table)


def show_one(row: Mapping[str, Any], style: str) -> None:
    """Print one thing as a table of its fields, or as JSON."""
    if style == "json":
        click.echo(json.dumps(row, indent=2))
        return
    show([{"field": k, "value": v} for k, v in row.items()], style, ("field", "value"))


def show_page(
    rows: Sequence[Mapping[str, Any]], style: str, columns: Sequence[str], cursor: str | None
) -> None:
    """Print a part of a list, and how to go on."""
    show(rows, style, columns)
    if cursor is not None:
        click.echo(f"There are more; go on with: --cursor {cursor}", err=True)


def paged(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a list that comes in pages."""
    for option in (
        click.option("--cursor", help="go on where the last page ended"),
        click.option("--limit", type=click.IntRange(1, MOST_ROWS), default=50, show_default=True),
        format_option,
    ):
        command = option(command)
    return command


def _shown(column: str, value: Any) -> str:
    text = printable(_cell(value))
    return text[:16].replace("T", " ") if column in _TIMES else text  # minutes; JSON has them all


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
