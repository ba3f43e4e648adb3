"""Policies by organisation: every change is a new version and an audit event.

An organisation is known by its store's name and its id there. The built-in store's have rows of
their own; those of a remote store are known from their leaks, or by what an administrator says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from scanner.db import audit
from scanner.db.clock import now_ms, to_iso
from scanner.db.dialect import upsert
from scanner.db.schema import incidents, organisations, policies
from scanner.db.tokens import BUILT_IN
from scanner.errors import FinalError
from scanner.model import AuditAction
from scanner.policy import Policy
from scanner.text import printable

_MOST_ID = 64  # characters, as incidents keep it


@dataclass(frozen=True, slots=True)
class Organisation:
    """Whose policy it is. `is_known`: it issues here, has leaked, or has a policy already."""

    store: str
    id: str
    name: str
    is_known: bool = True


def current_policy(connection: Connection, store: str, organisation_id: str) -> Policy:
    """Return the newest version; the default (version 0, revoke) where none was set."""
    row = connection.execute(_versions(store, organisation_id)).first()
    return Policy() if row is None else Policy(row.version, row.auto_revoke)


def find(
    connection: Connection,
    named: str,
    *,
    stores: Sequence[str] = (BUILT_IN,),
    store: str | None = None,
) -> Organisation:
    """Return the organisation of that name or id, of `store` if one is given.

    `stores` are those in use: at the last one, if it is remote, an organisation of which nothing is
    known yet may be named by its id there. Errors: `FinalError` names the known organisations, or
    the stores where several have one of that name.
    """
    known = [one for one in _known(connection) if store in (None, one.store)]
    found = [one for one in known if named == one.id] or [one for one in known if named == one.name]
    if len(found) > 1:
        ways = "; ".join(f"--store {one.store} --organisation {one.id}" for one in found)
        raise FinalError(f"Several organisations are called {named!r}; say which: {ways}.")
    if found:
        return found[0]
    names = sorted({BUILT_IN, *stores, *(one.store for one in _known(connection))})
    if store is not None and store not in names:
        raise FinalError(f"There is no store {store!r}; known: {', '.join(names)}.")
    at = stores[-1] if store is None else store
    if at != BUILT_IN and 0 < len(named) <= _MOST_ID:
        return Organisation(at, named, named, is_known=False)
    there = ", ".join(sorted(printable(one.name) for one in known)) or "none yet"
    raise FinalError(f"There is no organisation {named!r}; known: {there}.")


def set_auto_revoke(
    connection: Connection,
    named: str,
    *,
    enabled: bool,
    actor: str,
    stores: Sequence[str] = (BUILT_IN,),
    store: str | None = None,
) -> Policy:
    """Store a new version for the organisation that `find` finds."""
    organisation = find(connection, named, stores=stores, store=store)
    return change(connection, organisation, enabled=enabled, actor=actor)


def change(
    connection: Connection, organisation: Organisation, *, enabled: bool, actor: str
) -> Policy:
    """Store a new version for an organisation, audited with before and after."""
    at = {"store": organisation.store, "organisation_id": organisation.id}
    while True:
        before = current_policy(connection, organisation.store, organisation.id)
        after = Policy(before.version + 1, enabled)
        made = connection.execute(
            upsert(connection, policies)
            .values(
                **at,
                version=after.version,
                auto_revoke=enabled,
                changed_by=actor,
                changed_at=now_ms(connection),
            )
            .on_conflict_do_nothing()
        )
        if made.rowcount == 1:  # else another administrator was faster: theirs is the one before
            break
    audit.record(
        connection,
        AuditAction.POLICY_CHANGED,
        actor=actor,
        organisation_id=organisation.id,
        store=organisation.store,
        before={"version": before.version, "auto_revoke": before.auto_revoke},
        after={"version": after.version, "auto_revoke": after.auto_revoke},
    )
    return after


def list_policies(connection: Connection) -> list[dict[str, Any]]:
    """Return the policy in force of every organisation that is known."""
    listed = []
    for one in _known(connection):
        row = connection.execute(_versions(one.store, one.id)).first()
        policy = Policy() if row is None else Policy(row.version, row.auto_revoke)
        listed.append(
            {
                "store": one.store,
                "organisation": one.name,
                "id": one.id,
                "version": policy.version,
                "auto_revoke": policy.auto_revoke,
                "changed_by": row.changed_by if row else "default",
                "changed_at": to_iso(row.changed_at) if row else None,
            }
        )
    return listed


def _versions(store: str, organisation_id: str) -> Any:
    """Versions of one policy, the newest first."""
    return (
        select(policies)
        .where(policies.c.store == store, policies.c.organisation_id == organisation_id)
        .order_by(policies.c.version.desc())
        .limit(1)
    )


def _known(connection: Connection) -> list[Organisation]:
    """Every organisation: the built-in store's first, then by store and name."""
    found = {
        (BUILT_IN, row.id): row.name
        for row in connection.execute(select(organisations.c.id, organisations.c.name))
    }
    name = func.max(incidents.c.token["organisation"].as_string())
    leaked = (
        select(incidents.c.store, incidents.c.organisation_id, name.label("name"))
        .where(incidents.c.store != BUILT_IN)
        .group_by(incidents.c.store, incidents.c.organisation_id)
    )
    told = select(policies.c.store, policies.c.organisation_id, policies.c.organisation_id)
    for query in (leaked, told.distinct()):
        _add(found, connection.execute(query))
    known = (Organisation(store, key, shown) for (store, key), shown in found.items())
    return sorted(known, key=lambda one: (one.store != BUILT_IN, one.store, one.name, one.id))


def _add(found: dict[tuple[str, str], str], rows: Iterable[Any]) -> None:
    for store, organisation_id, name in rows:
        found.setdefault((store, organisation_id), name or organisation_id)
