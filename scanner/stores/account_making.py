"""Organisations and owners come to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert
from sqlalchemy.exc import IntegrityError

from scanner.db import audit
from scanner.db.clock import now_ms
from scanner.db.schema import new_id, organisations, owners
from scanner.db.tokens import Row
from scanner.errors import ConflictError, NotFoundError, RequestInvalidError
from scanner.model import AuditAction
from scanner.stores import rules
from scanner.stores.account_rows import organisation_row, owner_row

PERSON, BOT = "person", "bot"


def ensure_owner(
    connection: Connection,
    organisation: str,
    owner: str,
    email: str | None,
    contact: str | None,
    actor: str = audit.SYSTEM,
) -> str:
    """Create the organisation and the owner where they are missing; returns the owner's id. What is
    there stays as it is."""
    try:
        return str(owner_row(connection, owner, organisation)["id"])
    except NotFoundError:
        pass
    try:
        within = organisation_row(connection, organisation, lock=True)
    except NotFoundError:
        organisation_id = add_organisation(connection, organisation, contact, actor)
        within = organisation_row(connection, organisation_id)
    return add_owner(connection, within, owner, email, PERSON, actor)


def add_organisation(connection: Connection, name: str, contact: str | None, actor: str) -> str:
    """Add an organisation; returns its id. Errors: `ConflictError`, `RequestInvalidError`."""
    organisation_id = new_id()
    values = {
        "id": organisation_id,
        "name": rules.name(name, "The organisation's name"),
        "contact_email": rules.address(contact, "The contact"),
    }
    _insert(connection, organisations, values, created_at=now_ms(connection))
    audit.record(
        connection,
        AuditAction.ORGANISATION_CREATED,
        actor=actor,
        organisation_id=organisation_id,
        name=values["name"],
        contact=values["contact_email"],
    )
    return organisation_id


def add_owner(
    connection: Connection, within: Row, name: str, email: str | None, kind: str, actor: str
) -> str:
    """Add an owner to an organisation, which is locked; returns his id. Errors: the same."""
    owner_id = new_id()
    values = {
        "id": owner_id,
        "organisation_id": within["id"],
        "name": rules.name(name, "The owner's name"),
        "email": rules.address(email, "The owner's address"),
        "kind": kind,
    }
    check_reachable(kind, values["email"], within["contact_email"])
    _insert(connection, owners, values)
    audit.record(
        connection,
        AuditAction.OWNER_CREATED,
        actor=actor,
        organisation_id=within["id"],
        owner_id=owner_id,
        **{field: values[field] for field in ("name", "email", "kind")},
    )
    return owner_id


def check_reachable(kind: str, email: str | None, contact: str | None) -> None:
    """Errors: `ConflictError` for a bot that nobody would hear of."""
    if kind not in (PERSON, BOT):
        raise RequestInvalidError(f"An owner is a {PERSON} or a {BOT}.")
    if kind == BOT and email is None and contact is None:
        raise ConflictError(
            "A bot reads no mail: give it the address of those who look after it, or give its "
            "organisation a contact."
        )


def _insert(connection: Connection, table: Any, values: Mapping[str, Any], **more: Any) -> None:
    try:
        connection.execute(insert(table).values(**values, **more))
    except IntegrityError:
        raise ConflictError(f"The name {values['name']!r} is taken.") from None
