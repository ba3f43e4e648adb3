"""Rows of the built-in store's tokens, and what they say: read here, changed in `scanner/stores/`.

One statement answers a look-up: the tokens, every chain of keys there is, and the time, of the same
moment. So a token whose digest is being wrapped under another key is found in one form or the
other, and whoever asks learns at once of a chain he did not try.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    String,
    and_,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY

from scanner.db.clock import now_expression, to_datetime, to_iso
from scanner.db.dialect import POSTGRESQL
from scanner.db.schema import digest_chains, organisations, owners, tokens
from scanner.model import Lookup, TokenRecord, Validity

BUILT_IN = "built-in"  # the store's name, in incidents and freezes
ACTIVE, REVOKED = "active", "revoked"  # tokens.state
Row = RowMapping

_OWNED = tokens.join(organisations, organisations.c.id == tokens.c.organisation_id).outerjoin(
    owners, owners.c.id == tokens.c.owner_id
)
_COLUMNS: tuple[ColumnElement[Any], ...] = (
    *(column for column in tokens.c if column.name not in ("digest", "key_id")),
    organisations.c.name.label("organisation_name"),
    organisations.c.contact_email,
    organisations.c.disabled_at.label("organisation_disabled_at"),
    owners.c.name.label("owner_name"),
    owners.c.email.label("owner_email"),
    owners.c.kind.label("owner_kind"),
    owners.c.disabled_at.label("owner_disabled_at"),
)


def select_tokens(dialect: str) -> Select[Any]:
    """A query of token rows as this module's functions take them, each with the time as `now`."""
    return select(now_expression(dialect).label("now"), *_COLUMNS).select_from(_OWNED)


def among(dialect: str, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """`column` is one of the parameter `name` (made by `many`), however many they are: the
    statement's text stays the same, so it is compiled and planned once."""
    if dialect == POSTGRESQL:
        return column == any_(cast(bindparam(name), ARRAY(String)))
    values = func.json_each(bindparam(name, type_=String)).table_valued("value")
    return column.in_(select(values.c.value))


def many(dialect: str, values: Iterable[str]) -> Any:
    """The parameter of `among`."""
    return list(values) if dialect == POSTGRESQL else json.dumps(list(values))


@dataclass(frozen=True, slots=True)
class Found:
    """What one moment of the database says; `rows` have their `digest` and `key_id`, too, and
    chains go by their names (chains.py)."""

    rows: Sequence[Row]
    chains: frozenset[str]


def find(connection: Connection, digests: Sequence[str]) -> Found:
    """Look tokens up by digest, in one statement."""
    dialect = connection.dialect.name
    if len(digests) <= _FEW:
        padded = (*digests, *[""] * (_FEW - len(digests)))
        rows = connection.execute(_finding(dialect, True), dict(zip(_NAMES, padded, strict=True)))
    else:
        rows = connection.execute(_finding(dialect, False), {_MANY: many(dialect, digests)})
    found = rows.mappings().all()
    named = found[0]["chains"]
    return Found(
        [row for row in found if row["id"] is not None],
        frozenset(named.split(" ")) if named else frozenset(),
    )


# Single values are planned once; a list, by its length, each time: that is half of a look-up.
_FEW = 8
_NAMES = [f"digest{number}" for number in range(_FEW)]
_MANY = "digests"


@cache
def _finding(dialect: str, few: bool) -> Select[Any]:
    joined = func.string_agg if dialect == POSTGRESQL else func.group_concat
    chains = select(joined(digest_chains.c.key_id, literal_column("' '"))).scalar_subquery()
    moment = select(literal_column("1").label("one")).subquery()  # a row though nothing is found
    asked = (
        tokens.c.digest.in_([bindparam(name, type_=String) for name in _NAMES])
        if few
        else among(dialect, tokens.c.digest, _MANY)
    )
    return select(
        now_expression(dialect).label("now"),
        chains.label("chains"),
        tokens.c.digest,
        tokens.c.key_id,
        *_COLUMNS,
    ).select_from(
        moment.outerjoin(tokens, asked)
        .outerjoin(organisations, organisations.c.id == tokens.c.organisation_id)
        .outerjoin(owners, owners.c.id == tokens.c.owner_id)
    )


def validity_of(row: Row) -> Validity:
    """What the store says of a token at the row's `now`; of several ends the most final one."""
    if row["state"] != ACTIVE:
        return Validity.REVOKED
    if row["valid_to"] is not None and row["valid_to"] <= row["now"]:
        return Validity.EXPIRED
    if row["owner_disabled_at"] is not None or row["organisation_disabled_at"] is not None:
        return Validity.OWNER_DISABLED
    return Validity.ACTIVE


def has_validity(dialect: str, validity: Validity) -> ColumnElement[bool]:
    """The condition of `validity_of`, for a query of `select_tokens`."""
    now = now_expression(dialect)
    active = tokens.c.state == ACTIVE
    lasts = or_(tokens.c.valid_to.is_(None), tokens.c.valid_to > now)
    disabled = or_(owners.c.disabled_at.is_not(None), organisations.c.disabled_at.is_not(None))
    conditions = {
        Validity.REVOKED: tokens.c.state != ACTIVE,
        Validity.EXPIRED: and_(active, tokens.c.valid_to <= now),
        Validity.OWNER_DISABLED: and_(active, lasts, disabled),
        Validity.ACTIVE: and_(active, lasts, not_(disabled)),
    }
    return conditions[validity]


def to_lookup(row: Row) -> Lookup:
    """Return the store's answer for a token's row."""
    record = TokenRecord(
        store=BUILT_IN,
        token_id=row["id"],
        name=row["name"],
        pattern=row["pattern"],
        mask=row["mask"],
        organisation_id=row["organisation_id"],
        organisation=row["organisation_name"],
        organisation_contact=row["contact_email"],
        owner_id=row["owner_id"],
        owner_name=row["owner_name"],
        owner_email=row["owner_email"],
        scopes=tuple(row["scopes"]),
        valid_from=to_datetime(row["valid_from"]),
        valid_to=to_datetime(row["valid_to"]),
    )
    return Lookup(validity_of(row), record)


def to_plain(row: Row) -> dict[str, Any]:
    """Return a token as plain values for people and programs; digests stay inside."""
    return {
        "id": row["id"],
        "name": row["name"],
        "organisation": row["organisation_name"],
        "organisation_id": row["organisation_id"],
        "owner": row["owner_name"],
        "owner_id": row["owner_id"],
        "pattern": row["pattern"],
        "mask": row["mask"],
        "scopes": list(row["scopes"]),
        "validity": validity_of(row).value,
        "valid_from": to_iso(row["valid_from"]),
        "valid_to": to_iso(row["valid_to"]),
        "created_at": to_iso(row["created_at"]),
        "revoked_at": to_iso(row["revoked_at"]),
        "revoked_by": row["revoked_by"],
        "predecessor_id": row["predecessor_id"],
        "external_id": row["external_id"],
    }
