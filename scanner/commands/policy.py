"""patrol policy."""

from __future__ import annotations

import click

from scanner.commands.common import actor, format_option, services, show
from scanner.db import freezes, policies
from scanner.db.engine import reader
from scanner.db.tokens import BUILT_IN
from scanner.errors import FinalError
from scanner.text import printable


@click.group()
def policy() -> None:
    """What happens to a leaked token."""


@policy.command("show")
@format_option
def show_(style: str) -> None:
    """Show the policy of every organisation."""
    with reader(services().database).connect() as connection:
        rows = policies.list_policies(connection)
    columns = ("store", "organisation", "auto_revoke", "version", "changed_by", "changed_at")
    show(rows, style, columns)


@policy.command("set")
@click.option("--organisation", help="by name or id; at your own token service, the id it gives")
@click.option("--store", help="whose organisation it is, where several have one of that name")
@click.option("--auto-revoke", type=click.Choice(["on", "off"]))
@click.option("--release-store", help="lift the freeze of a store that was repaired")
def set_(
    organisation: str | None, store: str | None, auto_revoke: str | None, release_store: str | None
) -> None:
    """Change an organisation's policy, audited."""
    if (release_store is None) == all(one is None for one in (organisation, store, auto_revoke)):
        raise click.UsageError("give --organisation and --auto-revoke, or --release-store")
    built = services()
    if release_store is not None:
        with built.database.begin() as connection:
            if not freezes.release(connection, release_store, actor()):
                raise FinalError(f"The store {release_store} is not frozen.")
        click.echo(f"The store {release_store} is released.")
        return
    if organisation is None or auto_revoke is None:
        raise click.UsageError("give --organisation and --auto-revoke, or --release-store")
    with built.database.begin() as connection:
        found = policies.find(
            connection, organisation, stores=(BUILT_IN, built.store.name), store=store
        )
        after = policies.change(connection, found, enabled=auto_revoke == "on", actor=actor())
    click.echo(f"{printable(found.name)}: auto-revoke {auto_revoke} (version {after.version}).")
    if not found.is_known:
        click.echo(
            f"Nothing of {found.store} has leaked with that organisation's id yet.", err=True
        )
