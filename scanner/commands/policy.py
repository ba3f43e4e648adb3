"""patrol policy."""

from __future__ import annotations

import click

from scanner.commands.common import actor, format_option, services, show
from scanner.db import freezes, policies
from scanner.db.engine import reader
from scanner.errors import FinalError


@click.group()
def policy() -> None:
    """What happens to a leaked token."""


@policy.command("show")
@format_option
def show_(style: str) -> None:
    """Show the policy of every organisation."""
    with reader(services().database).connect() as connection:
        rows = policies.list_policies(connection)
    show(rows, style, ("organisation", "auto_revoke", "version", "changed_by", "changed_at"))


@policy.command("set")
@click.option("--organisation")
@click.option("--auto-revoke", type=click.Choice(["on", "off"]))
@click.option("--release-store", help="lift the freeze of a store that was repaired")
def set_(organisation: str | None, auto_revoke: str | None, release_store: str | None) -> None:
    """Change an organisation's policy, audited."""
    if (release_store is None) == (organisation is None and auto_revoke is None):
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
        after = policies.set_auto_revoke(
            connection, organisation, enabled=auto_revoke == "on", actor=actor()
        )
    click.echo(f"{organisation}: auto-revoke {auto_revoke} (version {after.version}).")
