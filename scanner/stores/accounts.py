"""Whose tokens they are: organisations, and their owners, people and bots.

An organisation is named by its id or its name, an owner by his id, or his name in an organisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from scanner.db import audit
from scanner.db.clock import now_ms
from scanner.db.engine import reader
from scanner.db.schema import organisations, owners
from scanner.db.tokens import Row
from scanner.errors import ConflictError
from scanner.model import AuditAction
from scanner.stores import rules
from scanner.stores.account_making import BOT, PERSON, add_organisation, add_owner, check_reachable
from scanner.stores.account_rows import (
    organisation_row,
    owner_row,
    owners_with_organisations,
    plain_organisation,
    plain_owner,
)
from scanner.stores.pages import Page, page, place_of, rows_of


class Accounts:
    """Organisations and owners of the built-in store.

    `actor` is who does it, for the audit trail; `changes` holds only the fields that change.
    Errors: `RequestInvalidError`, `NotFoundError`, `ConflictError`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def organisations(self, *, limit: int = 50, cursor: str | None = None) -> Page:
        """List organisations by name."""
        query = select(organisations).order_by(organisations.c.name).limit(rows_of(limit))
        if (place := place_of(cursor, [str])) is not None:
            query = query.where(organisations.c.name > place[0])
        with reader(self._engine).connect() as connection:
            rows = connection.execute(query).mappings().all()
        return page(rows, limit, plain_organisation, lambda row: [row["name"]])

    def organisation(self, name_or_id: str) -> dict[str, Any]:
        """Return one organisation."""
        with reader(self._engine).connect() as connection:
            return plain_organisation(organisation_row(connection, name_or_id))

    def create_organisation(self, *, name: str, contact: str | None, actor: str) -> dict[str, Any]:
        """Create an organisation; `contact` is told what its owners cannot be told."""
        with self._engine.begin() as connection:
            organisation_id = add_organisation(connection, name, contact, actor)
            return plain_organisation(organisation_row(connection, organisation_id))

    def update_organisation(
        self, name_or_id: str, changes: Mapping[str, Any], *, actor: str
    ) -> dict[str, Any]:
        """Change `name` or `contact`."""
        with self._engine.begin() as connection:
            row = organisation_row(connection, name_or_id, lock=True)
            values: dict[str, Any] = {}
            if "name" in changes:
                values["name"] = rules.name(changes["name"], "The organisation's name")
            if "contact" in changes:
                values["contact_email"] = rules.address(changes["contact"], "The contact")
                if values["contact_email"] is None and _has_silent_bot(connection, row["id"]):
                    raise ConflictError(
                        "The organisation has bots without an address: it needs a contact."
                    )
            changed = _update(connection, organisations, row, values)
            if changed:
                audit.record(
                    connection,
                    AuditAction.ORGANISATION_UPDATED,
                    actor=actor,
                    organisation_id=row["id"],
                    before={name: row[name] for name in changed},
                    after=changed,
                )
            return plain_organisation(organisation_row(connection, row["id"]))

    def enable_organisation(self, name_or_id: str, *, enabled: bool, actor: str) -> dict[str, Any]:
        """Let the tokens of an organisation work, or none of them."""
        with self._engine.begin() as connection:
            row = organisation_row(connection, name_or_id, lock=True)
            if _enable(connection, organisations, row, enabled=enabled):
                audit.record(
                    connection,
                    AuditAction.ORGANISATION_ENABLED
                    if enabled
                    else AuditAction.ORGANISATION_DISABLED,
                    actor=actor,
                    organisation_id=row["id"],
                    name=row["name"],
                )
            return plain_organisation(organisation_row(connection, row["id"]))

    def owners(
        self, *, organisation: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """List owners, of one organisation or of all, by name within each."""
        order = (owners.c.organisation_id, owners.c.name)
        query = owners_with_organisations().order_by(*order).limit(rows_of(limit))
        if (place := place_of(cursor, [str, str])) is not None:
            query = query.where(tuple_(*order) > tuple_(*place))
        with reader(self._engine).connect() as connection:
            if organisation is not None:
                within = organisation_row(connection, organisation)
                query = query.where(owners.c.organisation_id == within["id"])
            rows = connection.execute(query).mappings().all()
        return page(rows, limit, plain_owner, lambda row: [row["organisation_id"], row["name"]])

    def owner(self, name_or_id: str, organisation: str | None = None) -> dict[str, Any]:
        """Return one owner."""
        with reader(self._engine).connect() as connection:
            return plain_owner(owner_row(connection, name_or_id, organisation))

    def create_owner(
        self, *, organisation: str, name: str, email: str | None, kind: str = PERSON, actor: str
    ) -> dict[str, Any]:
        """Create an owner; a bot needs an address, or an organisation with a contact."""
        with self._engine.begin() as connection:
            # Held, so that the contact which a bot relies on stays.
            within = organisation_row(connection, organisation, lock=True)
            return plain_owner(
                owner_row(connection, add_owner(connection, within, name, email, kind, actor))
            )

    def update_owner(
        self, owner_id: str, changes: Mapping[str, Any], *, actor: str
    ) -> dict[str, Any]:
        """Change `name`, `email` or `kind`."""
        with self._engine.begin() as connection:
            organisation_id = owner_row(connection, owner_id)["organisation_id"]
            within = organisation_row(connection, organisation_id, lock=True)
            row = owner_row(connection, owner_id, lock=True)
            values: dict[str, Any] = {}
            if "name" in changes:
                values["name"] = rules.name(changes["name"], "The owner's name")
            if "email" in changes:
                values["email"] = rules.address(changes["email"], "The owner's address")
            if "kind" in changes:
                values["kind"] = changes["kind"]
            after = {**row, **values}
            check_reachable(after["kind"], after["email"], within["contact_email"])
            changed = _update(connection, owners, row, values)
            if changed:
                audit.record(
                    connection,
                    AuditAction.OWNER_UPDATED,
                    actor=actor,
                    organisation_id=organisation_id,
                    owner_id=owner_id,
                    before={name: row[name] for name in changed},
                    after=changed,
                )
            return plain_owner(owner_row(connection, owner_id))

    def enable_owner(self, owner_id: str, *, enabled: bool, actor: str) -> dict[str, Any]:
        """Let the tokens of an owner work, or none of them."""
        with self._engine.begin() as connection:
            row = owner_row(connection, owner_id, lock=True)
            if _enable(connection, owners, row, enabled=enabled):
                audit.record(
                    connection,
                    AuditAction.OWNER_ENABLED if enabled else AuditAction.OWNER_DISABLED,
                    actor=actor,
                    organisation_id=row["organisation_id"],
                    owner_id=owner_id,
                    name=row["name"],
                )
            return plain_owner(owner_row(connection, owner_id))


def _has_silent_bot(connection: Connection, organisation_id: str) -> bool:
    found = connection.execute(
        select(owners.c.id)
        .where(
            owners.c.organisation_id == organisation_id,
            owners.c.kind == BOT,
            owners.c.email.is_(None),
        )
        .limit(1)
    )
    return found.first() is not None


def _update(
    connection: Connection, table: Any, row: Row, values: Mapping[str, Any]
) -> dict[str, Any]:
    changed = {name: value for name, value in values.items() if row[name] != value}
    if changed:
        try:
            connection.execute(update(table).where(table.c.id == row["id"]).values(**changed))
        except IntegrityError:
            raise ConflictError(f"The name {changed['name']!r} is taken.") from None
    return changed


def _enable(connection: Connection, table: Any, row: Row, *, enabled: bool) -> bool:
    if (row["disabled_at"] is None) == enabled:
        return False
    at = None if enabled else now_ms(connection)
    connection.execute(update(table).where(table.c.id == row["id"]).values(disabled_at=at))
    return True
