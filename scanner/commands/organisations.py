"""patrol organisations."""

from __future__ import annotations

import click

from scanner.commands.common import (
    actor,
    format_option,
    paged,
    services,
    show_one,
    show_page,
)

_COLUMNS = ("id", "name", "contact", "disabled")


@click.group()
def organisations() -> None:
    """Organisations, whose policy answers their leaks."""


@organisations.command()
@click.option("--name", required=True)
@click.option("--contact", help="the address told what no owner can be told")
def create(name: str, contact: str | None) -> None:
    """Create an organisation."""
    row = services().accounts.create_organisation(name=name, contact=contact, actor=actor())
    click.echo(row["id"])


@organisations.command("list")
@paged
def list_(limit: int, cursor: str | None, style: str) -> None:
    """List organisations."""
    page = services().accounts.organisations(limit=limit, cursor=cursor)
    show_page(page.rows, style, _COLUMNS, page.cursor)


@organisations.command("show")
@click.argument("organisation")
@format_option
def show_(organisation: str, style: str) -> None:
    """Show one organisation, by name or id."""
    show_one(services().accounts.organisation(organisation), style)


@organisations.command()
@click.argument("organisation")
@click.option("--name")
@click.option("--contact", help='"" for none')
def update(organisation: str, name: str | None, contact: str | None) -> None:
    """Change an organisation's name or contact."""
    given = {"name": name, "contact": contact}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise click.UsageError("give what to change")
    row = services().accounts.update_organisation(organisation, changes, actor=actor())
    click.echo(f"{row['id']} is changed.")


@organisations.command()
@click.argument("organisation")
def disable(organisation: str) -> None:
    """Stop all tokens of an organisation; a leaked one is revoked all the same."""
    services().accounts.enable_organisation(organisation, enabled=False, actor=actor())
    click.echo("Disabled.")


@organisations.command()
@click.argument("organisation")
def enable(organisation: str) -> None:
    """Let the tokens of an organisation work again."""
    services().accounts.enable_organisation(organisation, enabled=True, actor=actor())
    click.echo("Enabled.")
