"""patrol owners."""

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
from scanner.stores.account_making import BOT, PERSON

_COLUMNS = ("id", "name", "kind", "organisation", "disabled")
_within = click.option("--organisation", help="where the owner is given by name")


def _id(owner: str, organisation: str | None) -> str:
    return str(services().accounts.owner(owner, organisation)["id"])


@click.group()
def owners() -> None:
    """People and bots that have tokens."""


@owners.command()
@click.option("--organisation", required=True, help="its name or id")
@click.option("--name", required=True)
@click.option("--email")
@click.option("--bot", is_flag=True, help="told by the organisation's contact, without --email")
def create(organisation: str, name: str, email: str | None, *, bot: bool) -> None:
    """Create an owner."""
    row = services().accounts.create_owner(
        organisation=organisation,
        name=name,
        email=email,
        kind=BOT if bot else PERSON,
        actor=actor(),
    )
    click.echo(row["id"])


@owners.command("list")
@click.option("--organisation", help="its name or id")
@paged
def list_(organisation: str | None, limit: int, cursor: str | None, style: str) -> None:
    """List owners."""
    page = services().accounts.owners(organisation=organisation, limit=limit, cursor=cursor)
    show_page(page.rows, style, _COLUMNS, page.cursor)


@owners.command("show")
@click.argument("owner")
@_within
@format_option
def show_(owner: str, organisation: str | None, style: str) -> None:
    """Show one owner, by id or name."""
    show_one(services().accounts.owner(owner, organisation), style)


@owners.command()
@click.argument("owner")
@_within
@click.option("--name")
@click.option("--email", help='"" for none')
@click.option("--kind", type=click.Choice([PERSON, BOT]))
def update(
    owner: str, organisation: str | None, name: str | None, email: str | None, kind: str | None
) -> None:
    """Change an owner's name, address or kind."""
    given = {"name": name, "email": email, "kind": kind}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise click.UsageError("give what to change")
    row = services().accounts.update_owner(_id(owner, organisation), changes, actor=actor())
    click.echo(f"{row['id']} is changed.")


@owners.command()
@click.argument("owner")
@_within
def disable(owner: str, organisation: str | None) -> None:
    """Stop all tokens of an owner; a leaked one is revoked all the same."""
    services().accounts.enable_owner(_id(owner, organisation), enabled=False, actor=actor())
    click.echo("Disabled.")


@owners.command()
@click.argument("owner")
@_within
def enable(owner: str, organisation: str | None) -> None:
    """Let the tokens of an owner work again."""
    services().accounts.enable_owner(_id(owner, organisation), enabled=True, actor=actor())
    click.echo("Enabled.")
