"""Lists of the built-in store's tokens, in pages, the newest first."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Engine, func, select, tuple_

from scanner.db.engine import reader
from scanner.db.schema import tokens
from scanner.db.tokens import has_validity, select_tokens, to_plain
from scanner.errors import RequestInvalidError
from scanner.model import Validity
from scanner.stores import rules
from scanner.stores.account_rows import organisation_row, owner_row
from scanner.stores.pages import Page, page, place_of, rows_of

_FEW = 2_000  # tokens that are sorted in no time
_LISTABLE = (Validity.ACTIVE, Validity.REVOKED, Validity.EXPIRED, Validity.OWNER_DISABLED)


def search(
    engine: Engine,
    *,
    organisation: str | None = None,
    owner: str | None = None,
    validity: Validity | None = None,
    pattern: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page:
    """List tokens; `owner` is an id, or a name in `organisation` (which is an id or a name).

    Errors: `RequestInvalidError`, `NotFoundError`.
    """
    if validity is not None and validity not in _LISTABLE:
        known = ", ".join(_LISTABLE)
        raise RequestInvalidError(f"The validity of a token is one of: {known}.")
    order = (tokens.c.created_at, tokens.c.id)
    dialect = engine.dialect.name
    query = select_tokens(dialect).order_by(*(o.desc() for o in order)).limit(rows_of(limit))
    if (place := place_of(cursor, [int, str])) is not None:
        query = query.where(tuple_(*order) < tuple_(*place))
    if validity is not None:
        query = query.where(has_validity(dialect, validity))
    if pattern is not None:
        query = query.where(tokens.c.pattern == rules.searched(pattern))
    with reader(engine).connect() as connection:
        if owner is not None:
            whose = owner_row(connection, owner, organisation)
            query = query.where(
                tokens.c.organisation_id == whose["organisation_id"],
                tokens.c.owner_id == whose["id"],
            )
        elif organisation is not None:
            within = organisation_row(connection, organisation)
            query = query.where(_of_organisation(connection, within["id"]))
        rows = connection.execute(query).mappings().all()
    return page(rows, limit, to_plain, lambda row: [row["created_at"], row["id"]])


def _of_organisation(connection: Connection, organisation_id: str) -> ColumnElement[bool]:
    """The tokens of an organisation: of one that has few they are sorted, of one that has most of
    all they are picked in their order; a database without statistics cannot tell which is which."""
    of_it = tokens.c.organisation_id == organisation_id
    some = select(tokens.c.id).where(of_it).limit(_FEW).subquery()
    count = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return of_it if count < _FEW else tokens.c.organisation_id.concat("") == organisation_id
