"""Incidents and sightings: one incident a token, many sightings (law 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, update

from scanner.db import audit
from scanner.db.clock import from_datetime, now_in, now_ms, to_iso
from scanner.db.dialect import upsert
from scanner.db.leases import PENDING
from scanner.db.schema import (
    incidents,
    new_id,
    repositories,
    scans,
    sealed_candidates,
    sightings,
)
from scanner.fingerprint import fingerprint
from scanner.incident import UNFINISHED, Phase
from scanner.keyring import Key
from scanner.model import AuditAction, Candidate, LocatedCandidate, Lookup, TokenRecord

_MOST_SIGHTINGS = 1_000  # rows an incident keeps; the rest is counted (threat 14)


def plain_token(token: TokenRecord) -> dict[str, Any]:
    """Return what an incident keeps of its token."""
    value = asdict(token)
    value["scopes"] = list(token.scopes)
    value["valid_from"] = to_iso(from_datetime(token.valid_from))
    value["valid_to"] = to_iso(from_datetime(token.valid_to))
    return value


def open_incident(connection: Connection, lookup: Lookup, scan_id: str) -> tuple[str, bool]:
    """Return (incident id, is new) for a proved token."""
    token = lookup.token
    if token is None:
        raise ValueError("only a proved token opens an incident")
    now = now_in(connection)
    incident_id = new_id()
    result = connection.execute(
        upsert(connection, incidents)
        .values(
            id=incident_id,
            store=token.store,
            token_id=token.token_id,
            generation=1,
            token=plain_token(token),
            organisation_id=token.organisation_id,
            validity=lookup.validity.value,
            phase=Phase.OPEN.value,
            opened_at=now,
            sightings=0,
            correlation_id=scan_id,
            state=PENDING,
            available_at=now,
            attempts=0,
            fence=0,
        )
        .on_conflict_do_nothing()
    )
    if result.rowcount == 1:
        audit.record(
            connection,
            AuditAction.LEAK_FOUND,
            organisation_id=token.organisation_id,
            incident_id=incident_id,
            token_id=token.token_id,
            correlation_id=scan_id,
            validity=lookup.validity.value,
            mask=token.mask,
        )
        return incident_id, True
    known = connection.execute(
        select(incidents.c.id)
        .where(incidents.c.store == token.store, incidents.c.token_id == token.token_id)
        .order_by(incidents.c.generation.desc())
        .limit(1)
    ).scalar_one()
    return known, False


def add_sighting(
    connection: Connection,
    *,
    incident_id: str,
    scan: Mapping[str, Any],
    found: LocatedCandidate,
    lookup: Lookup,
    path: str,
    key: Key,
    is_first: bool = False,
) -> bool:
    """Record one place of a known token, once; `path` is masked by the caller. A place whose token
    the store did not know then and knows now joins its incident. `is_first`: the incident was
    opened just now.

    False: it was known already, or only counted.
    """
    row = _sighting(scan, found, lookup, path, key, now_in(connection))
    identity = {name: row[name] for name in _IDENTITY}
    if not is_first and _is_full(connection, incident_id):
        where = [sightings.c[name] == value for name, value in identity.items()]
        if connection.execute(select(sightings.c.id).where(*where)).first() is None:
            _count(connection, incident_id, 1)
        return False
    judged = {"incident_id": incident_id, "validity": lookup.validity.value}
    result = connection.execute(
        upsert(connection, sightings)
        .values(**{**row, **judged})
        .on_conflict_do_update(
            index_elements=list(_IDENTITY), set_=judged, where=sightings.c.incident_id.is_(None)
        )
    )
    if result.rowcount != 1:
        return False
    _count(connection, incident_id, 1)
    return True


def add_unknown_sightings(
    connection: Connection,
    scan: Mapping[str, Any],
    findings: Sequence[tuple[LocatedCandidate, Lookup, str]],
    key: Key,
) -> None:
    """Record places of tokens that the store does not know: (candidate, answer, masked path)."""
    if not findings:
        return
    now = now_ms(connection)
    _add(connection, [_sighting(scan, *finding, key, now) for finding in findings])


def add_unproved_sightings(
    connection: Connection,
    scan: Mapping[str, Any],
    places: Sequence[tuple[LocatedCandidate, str]],
    lookup: Lookup,
    prints: Mapping[str, str],
) -> None:
    """The same for a token that is gone; `prints` are its fingerprint and the key of that."""
    now = now_ms(connection)
    rows = [_sighting(scan, found, lookup, path, None, now) for found, path in places]
    _add(connection, [{**row, **prints} for row in rows])


def _add(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    connection.execute(
        upsert(connection, sightings).on_conflict_do_nothing(index_elements=list(_IDENTITY)),
        [{"incident_id": None, **row} for row in rows],
    )


def join_by_fingerprint(
    connection: Connection,
    incident_id: str,
    candidate: Candidate,
    lookup: Lookup,
    keys: Sequence[Key],
) -> int:
    """Let earlier sightings of a token, that the store did not know then, join its incident.

    They are compared under every key of the ring. Returns how many joined.
    """
    prints = [fingerprint(key, candidate.pattern, candidate.secret) for key in keys]
    result = connection.execute(
        update(sightings)
        .where(sightings.c.fingerprint.in_(prints), sightings.c.incident_id.is_(None))
        .values(incident_id=incident_id, validity=lookup.validity.value)
    )
    if result.rowcount:
        _count(connection, incident_id, result.rowcount)
    return result.rowcount


_IDENTITY = ("repository_id", "object_id", "path", "start", "pattern")


def _prints(key: Key, candidate: Candidate) -> dict[str, str]:
    value = fingerprint(key, candidate.pattern, candidate.secret)
    return {"fingerprint": value, "fingerprint_key": key.id}


def _sighting(
    scan: Mapping[str, Any],
    found: LocatedCandidate,
    lookup: Lookup,
    path: str,
    key: Key | None,
    now: int | ColumnElement[int],
) -> dict[str, Any]:
    candidate, place = found.candidate, found.place
    return {
        "id": new_id(),
        "scan_id": scan["id"],
        "repository_id": scan["repository_id"],
        **({} if key is None else _prints(key, candidate)),
        "pattern": candidate.pattern,
        "validity": lookup.validity.value,
        "checksum": candidate.checksum.value,
        "encoding": candidate.encoding,
        "object_id": place.object_id,
        "object_kind": place.kind.value,
        "path": path,
        "commit": place.commit,
        "committed_at": from_datetime(place.committed_at),
        "line": place.line,
        "column": place.column,
        "start": candidate.start,
        "seen_at": now,
    }


def _is_full(connection: Connection, incident_id: str) -> bool:
    count = connection.execute(
        select(incidents.c.sightings).where(incidents.c.id == incident_id)
    ).scalar_one()
    return bool(count >= _MOST_SIGHTINGS)


def _count(connection: Connection, incident_id: str, number: int) -> None:
    connection.execute(
        update(incidents)
        .where(incidents.c.id == incident_id)
        .values(sightings=incidents.c.sightings + number)
    )


def without_held_token(connection: Connection, incident_ids: Iterable[str]) -> set[str]:
    """Return those of the incidents that have not ended, and for which no raw token is held."""
    held = select(sealed_candidates.c.incident_id).where(
        sealed_candidates.c.incident_id == incidents.c.id, sealed_candidates.c.sealed.is_not(None)
    )
    rows = connection.execute(
        select(incidents.c.id).where(
            incidents.c.id.in_(list(incident_ids)),
            incidents.c.phase.in_([phase.value for phase in UNFINISHED]),
            ~held.exists(),
        )
    )
    return set(rows.scalars())


def list_incidents(
    connection: Connection, incident_id: str | None = None, limit: int = 200
) -> list[dict[str, Any]]:
    """Return the newest incidents first, as plain values for people."""
    query = select(incidents).order_by(incidents.c.opened_at.desc()).limit(limit)
    if incident_id is not None:
        query = query.where(incidents.c.id == incident_id)
    return [
        {
            "id": row["id"],
            "phase": row["phase"],
            "validity": row["validity"],
            "token": row["token"]["name"],
            "token_id": row["token_id"],
            "mask": row["token"]["mask"],
            "pattern": row["token"]["pattern"],
            "organisation": row["token"]["organisation"],
            "owner": row["token"]["owner_name"],
            "sightings": row["sightings"],
            "policy_version": row["policy_version"],
            "opened_at": to_iso(row["opened_at"]),
            "revoked_at": to_iso(row["revoked_at"]),
            "work": row["state"],
            "error": row["error"],
        }
        for row in connection.execute(query).mappings()
    ]


def list_sightings(
    connection: Connection, incident_id: str, limit: int = 20
) -> tuple[list[dict[str, Any]], int]:
    """Return the first places of an incident, and how many were seen in all, counted ones too."""
    rows = connection.execute(
        select(
            sightings,
            repositories.c.host,
            repositories.c.name,
            scans.c.received_at,
            incidents.c.sightings.label("total"),
        )
        .join(incidents, incidents.c.id == sightings.c.incident_id)
        .join(repositories, repositories.c.id == sightings.c.repository_id)
        .join(scans, scans.c.id == sightings.c.scan_id)
        .where(sightings.c.incident_id == incident_id)
        .order_by(sightings.c.seen_at, sightings.c.id)
        .limit(limit)
    )
    found = rows.mappings().all()
    return [
        {
            "repository": row["name"],
            "kind": row["object_kind"],
            "path": row["path"] or None,
            "line": row["line"],
            "column": row["column"],
            "commit": row["commit"],
            "committed_at": to_iso(row["committed_at"]),
            "url": f"{row['host']}/{row['name']}/commit/{row['commit']}" if row["commit"] else None,
            "seen_at": to_iso(row["seen_at"]),
            "pushed_at": to_iso(row["received_at"]),
        }
        for row in found
    ], found[0]["total"] if found else 0
