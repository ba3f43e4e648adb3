"""One token's row in a transaction: found, locked, inserted, changed, and what may be done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from scanner.db import audit, late
from scanner.db.clock import to_iso
from scanner.db.schema import new_id, tokens
from scanner.db.tokens import ACTIVE, Row, select_tokens
from scanner.errors import ConflictError, NotFoundError, RequestInvalidError
from scanner.model import AuditAction, Secret
from scanner.stores import rules
from scanner.stores.digests import DigestRing, require_keys


def insert_token(
    connection: Connection,
    ring: DigestRing,
    secret: Secret,
    known: Iterable[str],
    values: Mapping[str, Any],
) -> str:
    """Insert a token under the newest pepper; returns its id.

    Errors: `StoreUnavailableError` when a pepper is missing.
    """
    require_keys(ring, known)
    token_id = new_id()
    connection.execute(
        insert(tokens).values(
            id=token_id,
            digest=ring.digest(ring.newest, secret),
            key_id=ring.newest,
            state=ACTIVE,
            **values,
        )
    )
    return token_id


def meet_leaks(
    connection: Connection,
    ring: DigestRing,
    secret: Secret,
    known: Iterable[str],
    token_id: str,
) -> None:
    """Let the places where a token was seen before it was known join its leak (law 7)."""
    digests = {ring.digest(chain, secret): token_id for chain in known}
    late.join(connection, late.meetings(connection, digests))


def token_row(connection: Connection, token_id: str) -> Row:
    """Return a token. Errors: `NotFoundError`."""
    row = None
    if rules.is_row_id(token_id):
        query = select_tokens(connection.dialect.name).where(tokens.c.id == token_id)
        row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError(f"There is no token {rules.quoted(token_id)}.")
    return row


def locked_row(connection: Connection, token_id: str) -> Row:
    """The same, kept from others until the transaction ends."""
    token_row(connection, token_id)
    query = select(tokens.c.id).where(tokens.c.id == token_id).with_for_update(key_share=True)
    connection.execute(query)
    return token_row(connection, token_id)


def change(connection: Connection, token_id: str, values: Mapping[str, Any]) -> Row:
    """Change a token; returns it as it is then."""
    connection.execute(update(tokens).where(tokens.c.id == token_id).values(**values))
    return token_row(connection, token_id)


def require_not_revoked(row: Row) -> None:
    """Errors: `ConflictError`."""
    if row["state"] != ACTIVE:
        raise ConflictError("The token is revoked, and stays as it is.")


def require_enabled(*disabled_at: int | None) -> None:
    """Errors: `ConflictError` when one of the two was disabled."""
    if any(at is not None for at in disabled_at):
        raise ConflictError("The owner or the organisation is disabled.")


def end_of(valid_to: datetime | None) -> int | None:
    """When a token ends, in the database's milliseconds; None: never."""
    return None if valid_to is None else rules.milliseconds(valid_to, "The end")


def require_order(begins: int, ends: int | None) -> None:
    """Errors: `RequestInvalidError` for a token without a length."""
    if ends is not None and ends <= begins:
        raise RequestInvalidError("The token would end before it begins.")


def facts(row: Row) -> dict[str, Any]:
    """What the trail says of a token that is new."""
    return {
        "name": row["name"],
        "mask": row["mask"],
        "pattern": row["pattern"],
        "owner_id": row["owner_id"],
        **readable({key: row[key] for key in ("scopes", "valid_from", "valid_to")}),
    }


def readable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as the trail shows them."""
    times = ("valid_from", "valid_to")
    return {key: to_iso(value) if key in times else value for key, value in values.items()}


def record(connection: Connection, action: AuditAction, row: Row, actor: str, **data: Any) -> None:
    """Audit a step of a token's life."""
    audit.record(
        connection,
        action,
        actor=actor,
        organisation_id=row["organisation_id"],
        token_id=row["id"],
        **data,
    )
