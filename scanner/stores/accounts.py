"""Whose tokens they are: organisations, and their owners, people and bots.

An organisation is named by its id or its name, an owner by his id, or his name in an organisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from scanner.db import audit
from scanner.db.clock import now_ms, to_iso
from scanner.db.engine import reader
from scanner.db.schema import new_id, organisations, owners
from scanner.db.tokens import Row
from scanner.errors import ConflictError, NotFoundError, RequestInvalidError
from scanner.model import AuditAction
from scanner.stores import rules
from scanner.stores.pages import Page, page, place_of, rows_of

PERSON, BOT = "person", "bot"


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
    query = _owners()
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


def _owners() -> Any:
    return select(
        owners,
        organisations.c.name.label("organisation_name"),
        organisations.c.contact_email,
        organisations.c.disabled_at.label("organisation_disabled_at"),
    ).join(organisations, organisations.c.id == owners.c.organisation_id)


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
        return page(rows, limit, _organisation, lambda row: [row["name"]])

    def organisation(self, name_or_id: str) -> dict[str, Any]:
        """Return one organisation."""
        with reader(self._engine).connect() as connection:
            return _organisation(organisation_row(connection, name_or_id))

    def create_organisation(self, *, name: str, contact: str | None, actor: str) -> dict[str, Any]:
        """Create an organisation; `contact` is told what its owners cannot be told."""
        with self._engine.begin() as connection:
            organisation_id = _add_organisation(connection, name, contact, actor)
            return _organisation(organisation_row(connection, organisation_id))

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
            return _organisation(organisation_row(connection, row["id"]))

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
            return _organisation(organisation_row(connection, row["id"]))

    def owners(
        self, *, organisation: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """List owners, of one organisation or of all, by name within each."""
        order = (owners.c.organisation_id, owners.c.name)
        query = _owners().order_by(*order).limit(rows_of(limit))
        if (place := place_of(cursor, [str, str])) is not None:
            query = query.where(tuple_(*order) > tuple_(*place))
        with reader(self._engine).connect() as connection:
            if organisation is not None:
                within = organisation_row(connection, organisation)
                query = query.where(owners.c.organisation_id == within["id"])
            rows = connection.execute(query).mappings().all()
        return page(rows, limit, _owner, lambda row: [row["organisation_id"], row["name"]])

    def owner(self, name_or_id: str, organisation: str | None = None) -> dict[str, Any]:
        """Return one owner."""
        with reader(self._engine).connect() as connection:
            return _owner(owner_row(connection, name_or_id, organisation))

    def create_owner(
        self, *, organisation: str, name: str, email: str | None, kind: str = PERSON, actor: str
    ) -> dict[str, Any]:
        """Create an owner; a bot needs an address, or an organisation with a contact."""
        with self._engine.begin() as connection:
            # Held, so that the contact which a bot relies on stays.
            within = organisation_row(connection, organisation, lock=True)
            return _owner(
                owner_row(connection, _add_owner(connection, within, name, email, kind, actor))
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
            _check_reachable(after["kind"], after["email"], within["contact_email"])
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
            return _owner(owner_row(connection, owner_id))

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
            return _owner(owner_row(connection, owner_id))


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
        organisation_id = _add_organisation(connection, organisation, contact, actor)
        within = organisation_row(connection, organisation_id)
    return _add_owner(connection, within, owner, email, PERSON, actor)


def _add_organisation(connection: Connection, name: str, contact: str | None, actor: str) -> str:
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


def _add_owner(
    connection: Connection, within: Row, name: str, email: str | None, kind: str, actor: str
) -> str:
    owner_id = new_id()
    values = {
        "id": owner_id,
        "organisation_id": within["id"],
        "name": rules.name(name, "The owner's name"),
        "email": rules.address(email, "The owner's address"),
        "kind": kind,
    }
    _check_reachable(kind, values["email"], within["contact_email"])
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


def _check_reachable(kind: str, email: str | None, contact: str | None) -> None:
    if kind not in (PERSON, BOT):
        raise RequestInvalidError(f"An owner is a {PERSON} or a {BOT}.")
    if kind == BOT and email is None and contact is None:
        raise ConflictError(
            "A bot reads no mail: give it the address of those who look after it, or give its "
            "organisation a contact."
        )


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


def _insert(connection: Connection, table: Any, values: Mapping[str, Any], **more: Any) -> None:
    try:
        connection.execute(insert(table).values(**values, **more))
    except IntegrityError:
        raise ConflictError(f"The name {values['name']!r} is taken.") from None


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


def _organisation(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "contact": row["contact_email"],
        "created_at": to_iso(row["created_at"]),
        "disabled": row["disabled_at"] is not None,
        "disabled_at": to_iso(row["disabled_at"]),
    }


def _owner(row: Row) -> dict[str, Any]:
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
