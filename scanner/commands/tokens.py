"""patrol tokens."""

from __future__ import annotations

import json

import click

from scanner.commands.common import actor, format_option, services, show
from scanner.errors import FinalError
from scanner.matcher.mask import mask
from scanner.patterns.generate import generate
from scanner.stores.sql import ensure_owner


@click.group()
def tokens() -> None:
    """Tokens of the built-in store."""


@tokens.command()
@click.option("--organisation", required=True)
@click.option("--owner", required=True, help="created when unknown, with --email")
@click.option("--email", help="the owner's address")
@click.option("--contact", help="the organisation's address")
@click.option("--name", required=True)
@click.option("--scope", "scopes", multiple=True)
@click.option("--pattern", default="azure-devops-pat", show_default=True)
@click.option("--days", type=click.IntRange(1, 36_500), default=90, show_default=True)
def issue(
    organisation: str,
    owner: str,
    email: str | None,
    contact: str | None,
    name: str,
    scopes: tuple[str, ...],
    pattern: str,
    days: int,
) -> None:
    """Issue a token; it is printed once and never again."""
    built = services()
    chosen = {p.id: p for p in built.matcher_ruleset.patterns}.get(pattern)
    if chosen is None or pattern not in built.bound:
        raise FinalError(
            f"The store does not issue {pattern!r}; it issues: {', '.join(sorted(built.bound))}."
        )
    secret = generate(chosen)
    with built.database.begin() as connection:
        ensure_owner(connection, organisation, owner, email, contact)
    token_id = built.builtin_store.issue(
        secret,
        organisation=organisation,
        owner=owner,
        name=name,
        pattern=pattern,
        mask=mask(chosen, secret.reveal()),
        scopes=scopes,
        days=days,
        actor=actor(),
    )
    click.echo(f"id     {token_id}", err=True)
    click.echo(secret.reveal().decode())


@tokens.command("list")
@format_option
def list_(style: str) -> None:
    """List tokens."""
    columns = ("id", "name", "owner", "mask", "validity")
    show(services().builtin_store.list_tokens(), style, columns)


@tokens.command("show")
@click.argument("token_id")
@format_option
def show_(token_id: str, style: str) -> None:
    """Show one token."""
    rows = services().builtin_store.list_tokens(token_id)
    if not rows:
        raise FinalError(f"There is no token {token_id}.")
    if style == "json":
        click.echo(json.dumps(rows[0], indent=2))
        return
    show([{"field": k, "value": v} for k, v in rows[0].items()], style, ("field", "value"))


@tokens.command()
@click.argument("token_id")
def revoke(token_id: str) -> None:
    """Revoke a token by hand."""
    if not services().builtin_store.revoke_by_hand(token_id, actor()):
        raise FinalError(f"{token_id} is not an active token.")
    click.echo("Revoked.")
