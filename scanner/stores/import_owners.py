"""Whose the tokens of an import are: organisations and owners by name, made where they miss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from scanner.db.clock import now_ms
from scanner.db.dialect import upsert
from scanner.db.schema import new_id, organisations, owners
from scanner.db.tokens import among, many
from scanner.stores.account_making import PERSON
from scanner.stores.importing import Line


@dataclass(slots=True)
class NamedIds:
    """Ids by name: of organisations, and of owners by (organisation, name)."""

    organisations: dict[str, str] = field(default_factory=dict)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)


class ImportedOwners:
    """Ids of organisations and owners by name, made where they are missing."""

    def __init__(self) -> None:
        self._kept = NamedIds()

    def keep(self, found: NamedIds) -> None:
        """Remember what was found or made: its transaction is committed."""
        self._kept.organisations.update(found.organisations)
        self._kept.owners.update(found.owners)

    def of(self, connection: Connection, lines: Iterable[Line]) -> NamedIds:
        """Return the ids for these lines."""
        found = NamedIds()
        wanted: dict[str, dict[str, str | None]] = {}
        for line in lines:
            known = self._kept.organisations.get(line.organisation)
            if known is not None:
                found.organisations[line.organisation] = known
            of_it = wanted.setdefault(line.organisation, {})
            if line.owner is None:
                continue
            owner = self._kept.owners.get((line.organisation, line.owner))
            if owner is None:
                of_it.setdefault(line.owner, line.email)
            else:
                found.owners[line.organisation, line.owner] = owner
        for organisation in sorted(wanted):  # in one order everywhere: nobody waits in a circle
            if organisation not in found.organisations:
                found.organisations[organisation] = _organisation(connection, organisation)
            within = found.organisations[organisation]
            for name, owner_id in _owners_of(connection, within, wanted[organisation]).items():
                found.owners[organisation, name] = owner_id
        return found


def _organisation(connection: Connection, name: str) -> str:
    values = {"id": new_id(), "name": name, "created_at": now_ms(connection)}
    connection.execute(upsert(connection, organisations).values(values).on_conflict_do_nothing())
    query = select(organisations.c.id).where(organisations.c.name == name)
    return str(connection.execute(query).scalar_one())


def _owners_of(
    connection: Connection, organisation_id: str, wanted: Mapping[str, str | None]
) -> dict[str, str]:
    if not wanted:
        return {}
    dialect = connection.dialect.name
    query = select(owners.c.name, owners.c.id).where(
        owners.c.organisation_id == organisation_id, among(dialect, owners.c.name, "names")
    )
    names = {"names": many(dialect, wanted)}
    there = {row[0]: row[1] for row in connection.execute(query, names)}
    missing = sorted(set(wanted) - set(there))
    if missing:
        rows = [
            {
                "id": new_id(),
                "organisation_id": organisation_id,
                "name": name,
                "email": wanted[name],
                "kind": PERSON,
            }
            for name in missing
        ]
        connection.execute(upsert(connection, owners).on_conflict_do_nothing(), rows)
        there = {row[0]: row[1] for row in connection.execute(query, names)}
    return there
