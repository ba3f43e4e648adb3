"""Rows of organisations and owners: found by name or id, and told as plain values.

An organisation is named by its id or its name, an owner by his id, or his name in an organisation.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from scanner.db.clock import to_iso
from scanner.db.schema import organisations, owners
from scanner.db.tokens import Row
from scanner.errors import NotFoundError
from scanner.stores import rules


def organisation_row(connection: Connection, name_or_id: str, *, lock: bool = False) -> Row:
    """Return an organisation. Errors: `NotFoundError`."""
    for column in (organisations.c.id, organisations.c.name):
        if column is organisations.c.id and not rules.is_row_id(name_or_id):
            continue
        query = select(organisations).where(column == rules.searched(name_or_id))
        row = (
            connection.execute(query.with_for_update(key_share=True) if lock else query)
            .mappings()
            .first()
        )
        if row is not None:
            return row
    raise NotFoundError(f"There is no organisation {rules.quoted(name_or_id)}.")


def owner_row(
    connection: Connection, name_or_id: str, organisation: str | None = None, *, lock: bool = False
) -> Row:
    """Return an owner, with `organisation_name`, `contact_email` and `organisation_disabled_at`.

    By his name only in an organisation. Errors: `NotFoundError`.
    """
    query = owners_with_organisations()
    if lock:
        query = query.with_for_update(key_share=True, of=owners)
    within = None if organisation is None else organisation_row(connection, organisation)
    if within is not None:
        query = query.where(owners.c.organisation_id == within["id"])
    found = None
    if rules.is_row_id(name_or_id):
        found = connection.execute(query.where(owners.c.id == name_or_id)).mappings().first()
    if found is None and within is not None:
        named = query.where(owners.c.name == rules.searched(name_or_id))
        found = connection.execute(named).mappings().first()
    if found is None:
        where = "" if within is None else f" in organisation {within['name']!r}"
        raise NotFoundError(f"There is no owner {rules.quoted(name_or_id)}{where}.")
    return found


def owners_with_organisations() -> Any:
    """A query of owners, with what of their organisations tokens go by."""
    return select(
        owners,
        organisations.c.name.label("organisation_name"),
        organisations.c.contact_email,
        organisations.c.disabled_at.label("organisation_disabled_at"),
    ).join(organisations, organisations.c.id == owners.c.organisation_id)


def plain_organisation(row: Row) -> dict[str, Any]:
    """Return an organisation as plain values."""
    return {
        "id": row["id"],
        "name": row["name"],
        "contact": row["contact_email"],
        "created_at": to_iso(row["created_at"]),
        "disabled": row["disabled_at"] is not None,
        "disabled_at": to_iso(row["disabled_at"]),
    }


def plain_owner(row: Row) -> dict[str, Any]:
    """Return an owner as plain values."""
    return {
        "id": row["id"],
        "name": row["name"],
        "kind": row["kind"],
        "email": row["email"],
        "organisation": row["organisation_name"],
        "organisation_id": row["organisation_id"],
        "disabled": row["disabled_at"] is not None,
        "disabled_at": to_iso(row["disabled_at"]),
    }
