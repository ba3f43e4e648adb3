"""patrol tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from scanner.commands.common import (
    actor,
    format_option,
    paged,
    services,
    show_one,
    show_page,
)
from scanner.errors import FinalError
from scanner.model import Validity
from scanner.stores.account_making import ensure_owner
from scanner.stores.importer import Outcome
from scanner.stores.lifecycle import DEFAULT_DAYS, LONGEST_OVERLAP

_DAYS = click.IntRange(1, 36_500)
_VALIDITIES = ("active", "revoked", "expired", "owner_disabled")
_COLUMNS = ("id", "name", "owner", "mask", "validity")


class Moment(click.ParamType[datetime]):
    """A date, or a date and time; UTC unless it says otherwise."""

    name = "date"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Parse ISO 8601."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail("it must be a date such as 2027-01-31, or 2027-01-31T12:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.group()
def tokens() -> None:
    """Tokens of the built-in store."""


@tokens.command()
@click.option("--organisation", required=True, help="created when unknown, with --contact")
@click.option("--owner", required=True, help="created when unknown, with --email")
@click.option("--email", help="the owner's address")
@click.option("--contact", help="the organisation's address")
@click.option("--name", required=True)
@click.option("--scope", "scopes", multiple=True)
@click.option("--pattern", default="azure-devops-pat", show_default=True)
@click.option("--days", type=_DAYS, default=DEFAULT_DAYS, show_default=True)
@click.option("--external-id", help="what your own books call it")
def issue(
    organisation: str,
    owner: str,
    email: str | None,
    contact: str | None,
    name: str,
    scopes: tuple[str, ...],
    pattern: str,
    days: int,
    external_id: str | None,
) -> None:
    """Issue a token; it is printed once and never again."""
    built = services()
    minted = built.mint.make(pattern)
    with built.database.begin() as connection:
        owner_id = ensure_owner(connection, organisation, owner, email, contact, actor())
    made = built.tokens.create(
        minted.secret,
        organisation=organisation,
        owner=owner_id,
        name=name,
        pattern=minted.pattern,
        mask=minted.mask,
        scopes=scopes,
        days=days,
        external_id=external_id,
        actor=actor(),
    )
    click.echo(f"id     {made['id']}", err=True)
    click.echo(minted.secret.reveal().decode())


@tokens.command("list")
@click.option("--organisation", help="its name or id")
@click.option("--owner", help="the owner's id, or the name with --organisation")
@click.option("--validity", type=click.Choice(_VALIDITIES))
@click.option("--pattern")
@paged
def list_(
    organisation: str | None,
    owner: str | None,
    validity: str | None,
    pattern: str | None,
    limit: int,
    cursor: str | None,
    style: str,
) -> None:
    """List tokens, the newest first."""
    page = services().tokens.search(
        organisation=organisation,
        owner=owner,
        validity=None if validity is None else Validity(validity),
        pattern=pattern,
        limit=limit,
        cursor=cursor,
    )
    show_page(page.rows, style, _COLUMNS, page.cursor)


@tokens.command("show")
@click.argument("token_id")
@format_option
def show_(token_id: str, style: str) -> None:
    """Show one token."""
    show_one(services().tokens.get(token_id), style)


@tokens.command()
@click.argument("token_id")
@click.option("--name")
@click.option("--scope", "scopes", multiple=True, help="replaces all scopes")
@click.option("--no-scopes", is_flag=True)
@click.option("--valid-to", type=Moment(), help="in the future it brings an expired one back")
@click.option("--no-end", is_flag=True, help="it never expires")
def update(
    token_id: str,
    name: str | None,
    scopes: tuple[str, ...],
    valid_to: datetime | None,
    *,
    no_scopes: bool,
    no_end: bool,
) -> None:
    """Change a token's name, scopes or end."""
    changes: dict[str, object] = {}
    if name is not None:
        changes["name"] = name
    if scopes or no_scopes:
        changes["scopes"] = list(scopes)
    if valid_to is not None or no_end:
        changes["valid_to"] = valid_to
    if not changes or (scopes and no_scopes) or (valid_to is not None and no_end):
        raise click.UsageError("give what to change, each thing once")
    row = services().tokens.update(token_id, changes, actor=actor())
    click.echo(f"{row['id']} is {row['validity']}, until {row['valid_to'] or 'it is revoked'}.")


@tokens.command()
@click.argument("token_id")
@click.option("--days", type=_DAYS, help="as long as the old one, unless given")
@click.option(
    "--overlap",
    type=click.IntRange(0, LONGEST_OVERLAP),
    default=0,
    show_default=True,
    help="seconds the old one still works",
)
def rotate(token_id: str, days: int | None, overlap: int) -> None:
    """Replace a token by a new one, printed once; the old one ends."""
    built = services()
    lifecycle = built.tokens
    minted = built.mint.make(lifecycle.get(token_id)["pattern"])
    made = lifecycle.rotate(
        token_id, minted.secret, mask=minted.mask, overlap=overlap, days=days, actor=actor()
    )
    click.echo(f"id     {made['id']}", err=True)
    click.echo(minted.secret.reveal().decode())


@tokens.command()
@click.argument("token_id")
def revoke(token_id: str) -> None:
    """Revoke a token by hand, for good."""
    lifecycle = services().tokens
    if lifecycle.get(token_id)["validity"] == Validity.REVOKED.value:
        raise FinalError(f"{token_id} is revoked already.")
    lifecycle.revoke(token_id, actor=actor())
    click.echo("Revoked.")


@tokens.command()
@click.argument("token_id")
def expire(token_id: str) -> None:
    """Let a token end now; patrol tokens update can bring it back."""
    row = services().tokens.expire(token_id, actor=actor())
    click.echo(f"{row['id']} has expired.")


@tokens.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--pattern", help="of rows that name none")
@click.option("--dry-run", is_flag=True, help="read and check only")
def import_(file: Path, pattern: str | None, *, dry_run: bool) -> None:
    """Import digests of tokens issued elsewhere (docs/tokens.md says from what).

    Rows that are not taken go to FILE.rejected; exit code 1 if there are any.
    """
    outcome = services().importer.run(
        file,
        default_pattern=pattern,
        dry_run=dry_run,
        actor=actor(),
        report=lambda so_far: click.echo(_progress(so_far), err=True),
    )
    said = "would be imported" if dry_run else "imported"
    click.echo(f"{outcome.imported} tokens {said}, {outcome.known} known already.")
    if outcome.met:
        click.echo(f"{outcome.met} places of leaks are theirs; see: patrol leaks list")
    if outcome.raw:
        click.echo(
            f"{outcome.raw} rows hold something that may be a token itself. Nothing of it was "
            f"kept; destroy {file} and its copies, and make one of digests.",
            err=True,
        )
    if outcome.rejected:
        where = f"see {outcome.rejected_file}" if outcome.rejected_file else "nothing was written"
        click.echo(f"{outcome.rejected} rows rejected: {where}.", err=True)
        raise click.exceptions.Exit(1)


def _progress(outcome: Outcome) -> str:
    return f"  {outcome.imported} new, {outcome.known} known, {outcome.rejected} rejected"
