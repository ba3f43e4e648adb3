"""patrol keys."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic

import click

from scanner.bootstrap import Services
from scanner.commands.common import actor, format_option, services, show
from scanner.db import audit, chains
from scanner.db.engine import reader
from scanner.db.keycheck import check_keys
from scanner.db.keyusage import key_usage
from scanner.errors import FinalError
from scanner.keyring import Ring
from scanner.model import AuditAction
from scanner.stores.wrapping import Progress, wrap_digests

_RINGS = ("pepper", "fingerprint", "seal")
_REPORT_SECONDS = 1.0


def _rings(built: Services) -> dict[str, Ring]:
    settings = built.settings
    rings = (settings.pepper_ring, settings.fingerprint_ring, settings.seal_ring)
    return dict(zip(_RINGS, rings, strict=True))


@click.group()
def keys() -> None:
    """Key rings: what is in them, and their rotation."""


@keys.command("list")
@format_option
def list_(style: str) -> None:
    """List every key, newest first, and how many rows still need it."""
    built = services()
    with reader(built.database).connect() as connection:
        usage = key_usage(connection)
    rows = [
        {
            "ring": name,
            "key": key.id,
            "from": "data directory" if ring.is_file else "setting",
            "rows": usage[name][key.id],
            "makes": "what is new" if place == 0 else "nothing any more",
        }
        for name, ring in _rings(built).items()
        for place, key in enumerate(ring)
    ]
    show(rows, style, ("ring", "key", "from", "rows", "makes"))


@keys.command()
@click.argument("ring", type=click.Choice(_RINGS))
def rotate(ring: str) -> None:
    """Make a new key, which makes what is new from now on; running processes take it at once."""
    built = services()
    chosen = _rings(built)[ring]
    with built.database.begin() as connection:
        key_id = f"{datetime.now(UTC):%Y-%m-%d}"
        number = 1
        while not chosen.add(key_id):
            number += 1
            key_id = f"{datetime.now(UTC):%Y-%m-%d}.{number}"
        check_keys(connection, ring, chosen)
        audit.record(connection, AuditAction.KEY_MADE, actor=actor(), purpose=ring, key=key_id)
    click.echo(f"{key_id} is the newest key for {ring}. Keep a copy of {chosen.path}.")
    if ring == "pepper":
        click.echo("What is stored under older keys: patrol keys wrap-digests")


@keys.command("wrap-digests")
def wrap_digests_() -> None:
    """Wrap stored digests under the newest pepper, while everything runs; may be stopped."""
    built = services()
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        if monotonic() - last >= _REPORT_SECONDS:
            last = monotonic()
            click.echo(f"  {progress.tokens} tokens, {progress.unknown} unknown", err=True)

    done = wrap_digests(built.database, built.peppers, actor=actor(), report=report)
    click.echo(
        f"{done.progress.tokens} digests of tokens and {done.progress.unknown} of unknown ones are "
        f"now under {done.newest}."
    )
    for key_id in done.needed:
        click.echo(f"{key_id} is still needed: digests were made with it before they were wrapped.")
    for key_id in done.free:
        click.echo(f"{key_id} is needed no more: patrol keys destroy pepper {key_id}")


@keys.command()
@click.argument("ring", type=click.Choice(_RINGS))
@click.argument("key_id")
def destroy(ring: str, key_id: str) -> None:
    """Remove a key that nothing needs any more."""
    built = services()
    chosen = _rings(built)[ring]
    if chosen.find(key_id) is None:
        raise FinalError(f"There is no key {key_id!r} for {ring}; see: patrol keys list")
    if chosen[0].id == key_id:
        raise FinalError(f"{key_id} is the newest key for {ring}; first: patrol keys rotate {ring}")
    if ring == "pepper":
        chains.remove_unused(built.database, [chosen[0].id])
    with built.database.begin() as connection:
        needed = key_usage(connection)[ring][key_id]
        if needed:
            raise FinalError(f"{needed} rows still need the key {key_id}; see: patrol keys list")
        audit.record(connection, AuditAction.KEY_DESTROYED, actor=actor(), purpose=ring, key=key_id)
    chosen.remove([key_id])
    click.echo(f"{key_id} is gone.")
