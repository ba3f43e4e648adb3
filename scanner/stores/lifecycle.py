"""The life of the built-in store's tokens: created, updated, rotated, expired, revoked.

Every step is one transaction with its audit event. Revoked is for good. What comes to life meets
the leaks that were seen before (law 7): a new token its earlier sightings, a prolonged one its
incident.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, select, update

from scanner.db import chains
from scanner.db.clock import now_ms, to_iso
from scanner.db.engine import reader
from scanner.db.reopening import reopen
from scanner.db.schema import tokens
from scanner.db.tokens import (
    ACTIVE,
    REVOKED,
    to_plain,
    validity_of,
)
from scanner.errors import ConflictError, RequestInvalidError
from scanner.model import AuditAction, Secret, Validity
from scanner.stores import rules
from scanner.stores.account_rows import owner_row
from scanner.stores.digests import Peppers
from scanner.stores.listing import search
from scanner.stores.pages import Page
from scanner.stores.token_rows import (
    change,
    end_of,
    facts,
    insert_token,
    locked_row,
    meet_leaks,
    readable,
    record,
    require_enabled,
    require_not_revoked,
    require_order,
    token_row,
)

DAY_MS = 86_400_000
LONGEST_OVERLAP = 30 * 86_400  # seconds that a rotated token may go on
DEFAULT_DAYS = 90
_MOST_CAUSE = 64  # characters


class TokenLifecycle:
    """Tokens of the built-in store, as plain values. Raw tokens come in as `Secret` and stay out of
    the database: their digests go there.

    `actor` is who does it, for the audit trail. Errors: `RequestInvalidError`, `NotFoundError`,
    `ConflictError`; `StoreUnavailableError` when a pepper is missing.
    """

    def __init__(self, engine: Engine, peppers: Peppers) -> None:
        self._engine = engine
        self._peppers = peppers

    def create(
        self,
        secret: Secret,
        *,
        organisation: str,
        owner: str,
        name: str,
        pattern: str,
        mask: str,
        scopes: Sequence[str],
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        days: int | None = None,
        external_id: str | None = None,
        actor: str,
    ) -> dict[str, Any]:
        """Record a new token of an owner; it begins at `valid_from` (now), and ends at `valid_to`,
        or so many days after it begins, or never."""
        values = {
            "name": rules.name(name, "The token's name"),
            "pattern": rules.pattern(pattern),
            "scopes": rules.scopes(scopes),
            "mask": mask,
            "external_id": None
            if external_id is None
            else rules.name(external_id, "The external id"),
        }
        ring = self._peppers.now()
        with chains.issuing(self._engine, [ring.newest]) as (connection, known):
            whose = owner_row(connection, owner, organisation)
            require_enabled(whose["disabled_at"], whose["organisation_disabled_at"])
            now = now_ms(connection)
            begins = now if valid_from is None else rules.milliseconds(valid_from, "The begin")
            ends = begins + days * DAY_MS if days is not None else end_of(valid_to)
            require_order(begins, ends)
            token_id = insert_token(
                connection,
                ring,
                secret,
                known,
                {
                    **values,
                    "organisation_id": whose["organisation_id"],
                    "owner_id": whose["id"],
                    "valid_from": begins,
                    "valid_to": ends,
                    "created_at": now,
                },
            )
            row = token_row(connection, token_id)
            record(connection, AuditAction.TOKEN_ISSUED, row, actor, **facts(row))
            meet_leaks(connection, ring, secret, known, token_id)
        return to_plain(row)

    def get(self, token_id: str) -> dict[str, Any]:
        """Return one token."""
        with reader(self._engine).connect() as connection:
            return to_plain(token_row(connection, token_id))

    def search(self, **filters: Any) -> Page:
        """List tokens; the filters are those of `listing.search`."""
        return search(self._engine, **filters)

    def update(self, token_id: str, changes: Mapping[str, Any], *, actor: str) -> dict[str, Any]:
        """Change `name`, `scopes` or `valid_to` (a datetime, or None: never)."""
        with self._engine.begin() as connection:
            row = locked_row(connection, token_id)
            require_not_revoked(row)
            values: dict[str, Any] = {}
            if "name" in changes:
                values["name"] = rules.name(changes["name"], "The token's name")
            if "scopes" in changes:
                values["scopes"] = rules.scopes(changes["scopes"])
            if "valid_to" in changes:
                values["valid_to"] = end_of(changes["valid_to"])
                require_order(row["valid_from"], values["valid_to"])
            changed = {key: value for key, value in values.items() if row[key] != value}
            if changed:
                after = change(connection, token_id, changed)
                record(
                    connection,
                    AuditAction.TOKEN_UPDATED,
                    row,
                    actor,
                    before=readable({key: row[key] for key in changed}),
                    after=readable(changed),
                )
                reopen(connection, after, actor)
            return to_plain(token_row(connection, token_id))

    def rotate(
        self,
        token_id: str,
        secret: Secret,
        *,
        mask: str,
        overlap: int = 0,
        days: int | None = None,
        actor: str,
    ) -> dict[str, Any]:
        """Record the successor of a token: of the same owner, name and scopes, valid for `days` or
        as long as the token was meant to be. The token itself works for `overlap` seconds more."""
        if not 0 <= overlap <= LONGEST_OVERLAP:
            raise RequestInvalidError(f"The overlap is 0 to {LONGEST_OVERLAP} seconds.")
        ring = self._peppers.now()
        with chains.issuing(self._engine, [ring.newest]) as (connection, known):
            row = locked_row(connection, token_id)
            require_not_revoked(row)
            if validity_of(row) is Validity.EXPIRED:
                raise ConflictError("The token has expired; issue a new one.")
            require_enabled(row["owner_disabled_at"], row["organisation_disabled_at"])
            successor = connection.execute(
                select(tokens.c.id).where(tokens.c.predecessor_id == token_id)
            ).scalar_one_or_none()
            if successor is not None:
                raise ConflictError(
                    f"The token was rotated already; rotate its successor {successor}."
                )
            now = now_ms(connection)
            begins = max(now, row["valid_from"])
            ends = None if row["valid_to"] is None else row["valid_to"] - row["valid_from"] + begins
            if days is not None:
                ends = begins + days * DAY_MS
            require_order(begins, ends)
            inherited = ("organisation_id", "owner_id", "name", "pattern", "scopes", "external_id")
            successor_id = insert_token(
                connection,
                ring,
                secret,
                known,
                {
                    **{column: row[column] for column in inherited},
                    "mask": mask,
                    "valid_from": begins,
                    "valid_to": ends,
                    "created_at": now,
                    "predecessor_id": token_id,
                },
            )
            last = now + overlap * 1_000
            if row["valid_to"] is None or row["valid_to"] > last:
                change(connection, token_id, {"valid_to": last})
            after = token_row(connection, successor_id)
            record(
                connection,
                AuditAction.TOKEN_ROTATED,
                row,
                actor,
                successor_id=successor_id,
                overlap_seconds=overlap,
                valid_to=to_iso(token_row(connection, token_id)["valid_to"]),
                successor=facts(after),
            )
            meet_leaks(connection, ring, secret, known, successor_id)
        return to_plain(after)

    def expire(self, token_id: str, *, actor: str) -> dict[str, Any]:
        """Let a token end now; unlike revoking it can be undone, by prolonging it."""
        with self._engine.begin() as connection:
            row = locked_row(connection, token_id)
            require_not_revoked(row)
            if validity_of(row) is not Validity.EXPIRED:
                now = now_ms(connection)
                # A token that has not begun yet began when it ended: it has a length, if none.
                begun = min(row["valid_from"], now)
                after = change(connection, token_id, {"valid_to": now, "valid_from": begun})
                record(
                    connection,
                    AuditAction.TOKEN_EXPIRED,
                    row,
                    actor,
                    before=readable({"valid_to": row["valid_to"]}),
                    after=readable({"valid_to": after["valid_to"]}),
                )
            return to_plain(token_row(connection, token_id))

    def revoke(
        self, token_id: str, *, cause: str | None = None, actor: str
    ) -> tuple[dict[str, Any], bool]:
        """Revoke a token for good; returns it, and whether this was done by `cause` (an incident's
        id; by default the actor), now or before."""
        by = actor if cause is None else rules.name(cause, "The cause", _MOST_CAUSE)
        with self._engine.begin() as connection:
            before = token_row(connection, token_id)
            done = connection.execute(
                update(tokens)
                .where(tokens.c.id == token_id, tokens.c.state == ACTIVE)
                .values(state=REVOKED, revoked_by=by[:_MOST_CAUSE], revoked_at=now_ms(connection))
            )
            row = token_row(connection, token_id)
            if done.rowcount == 1:
                record(
                    connection,
                    AuditAction.TOKEN_REVOKED,
                    row,
                    actor,
                    before=validity_of(before).value,
                    cause=by,
                    mask=row["mask"],
                )
            return to_plain(row), row["revoked_by"] == by[:_MOST_CAUSE]
