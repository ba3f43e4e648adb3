"""Leaks that were seen before the built-in store knew their token (law 7).

A scan that finds a token nobody knows keeps its digests, beside the fingerprint, under every chain
of keys that a token may have. When the token is imported or created later, its digest leads to
those sightings, and they open its incident as if it were found now. Both sides keep out of each
other's way (chains.py), and look before they write: whichever comes second sees the other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Select,
    bindparam,
    delete,
    exists,
    select,
    update,
)

from scanner.db import audit, chains, heartbeats, incidents
from scanner.db.clock import now_ms
from scanner.db.dialect import upsert
from scanner.db.schema import incidents as incidents_table
from scanner.db.schema import sightings, tokens, unknown_digests
from scanner.db.tokens import among, many, select_tokens, to_lookup
from scanner.deadline import Deadline
from scanner.model import AuditAction

log = logging.getLogger(__name__)

_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000
_BATCH = 1_000
_ROUND = "prune-unknown"


@dataclass(frozen=True, slots=True)
class Meeting:
    """A token, and a sighting of it from when nobody knew it."""

    token_id: str
    sighting_id: str
    scan_id: str


def remember(connection: Connection, digests: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Keep the digests of tokens that the store does not know: by fingerprint, (chain, digest).

    They are kept for every place where the token was seen, also for those of earlier scans that
    could not: nobody was asked then, or a key has come since.

    Call `chains.lock_for_sightings` before the store is asked for the last time.
    """
    rows = [
        {"digest": digest, "chain": chains.name_of(chain), "print": fingerprint}
        for fingerprint, made in digests.items()
        for chain, digest in made
    ]
    if not rows:
        return
    chains.add(connection, sorted({chain for made in digests.values() for chain, _ in made}))
    source = select(
        bindparam("digest", type_=unknown_digests.c.digest.type),
        bindparam("chain", type_=unknown_digests.c.key_id.type),
        sightings.c.id,
    ).where(
        sightings.c.fingerprint == bindparam("print"),
        sightings.c.incident_id.is_(None),
        ~exists().where(
            unknown_digests.c.sighting_id == sightings.c.id,
            unknown_digests.c.key_id == bindparam("chain"),
        ),
    )
    connection.execute(
        upsert(connection, unknown_digests)
        .from_select(["digest", "key_id", "sighting_id"], source)
        .on_conflict_do_nothing(),
        rows,
    )


def meetings(connection: Connection, token_ids: Mapping[str, str]) -> list[Meeting]:
    """Return what waits for tokens that are being written: by digest, under any chain, the
    token's id."""
    dialect = connection.dialect.name
    found = connection.execute(
        _meetings(unknown_digests.c.digest).where(
            among(dialect, unknown_digests.c.digest, "digests")
        ),
        {"digests": many(dialect, token_ids)},
    )
    return [Meeting(token_ids[row[0]], row[1], row[2]) for row in found]


def _meetings(first: ColumnElement[str]) -> Select[Any]:
    return (
        select(first, sightings.c.id, sightings.c.scan_id)
        .select_from(unknown_digests)
        .join(sightings, sightings.c.id == unknown_digests.c.sighting_id)
        .where(sightings.c.incident_id.is_(None))
        .order_by(sightings.c.seen_at, sightings.c.id)
    )


def join(connection: Connection, met: Iterable[Meeting]) -> int:
    """Open the incident of each token, or find it, and let its sightings join; returns how many
    did."""
    by_token: dict[str, dict[str, str]] = {}
    for meeting in met:
        by_token.setdefault(meeting.token_id, {})[meeting.sighting_id] = meeting.scan_id
    dialect, joined = connection.dialect.name, 0
    for token_id in sorted(by_token):  # in one order everywhere: nobody waits in a circle
        seen = by_token[token_id]
        query = select_tokens(dialect).where(tokens.c.id == token_id)
        lookup = to_lookup(connection.execute(query).mappings().one())
        scan_id = next(iter(seen.values()))
        incident_id, is_new = incidents.open_incident(connection, lookup, scan_id)
        count = connection.execute(
            update(sightings)
            .where(among(dialect, sightings.c.id, "ids"), sightings.c.incident_id.is_(None))
            .values(incident_id=incident_id, validity=lookup.validity.value),
            {"ids": many(dialect, seen)},
        ).rowcount
        connection.execute(
            update(incidents_table)
            .where(incidents_table.c.id == incident_id)
            .values(sightings=incidents_table.c.sightings + count)
        )
        if count and not is_new and lookup.token is not None:
            audit.record(
                connection,
                AuditAction.LEAK_SEEN_AGAIN,
                organisation_id=lookup.token.organisation_id,
                incident_id=incident_id,
                token_id=token_id,
                correlation_id=scan_id,
            )
        joined += count
    return joined


def prune_old(engine: Engine, days: float, deadline: Deadline | None = None) -> int:
    """Once an hour, forget the sightings that nobody knew for so many days, and digests of those
    that joined an incident; returns how many sightings are gone. What there is no time for is left
    to the next hour."""
    with engine.begin() as connection:
        if not heartbeats.begin_round(connection, _ROUND, _HOUR_MS):
            return 0
    total = 0
    while deadline is None or not deadline.is_over:
        with engine.begin() as connection:
            count = _prune(connection, days)
            if not count and not _forget_joined(connection):
                break
        total += count
    if total:
        log.info("unknown sightings pruned", extra={"sightings": total})
    return total


def _prune(connection: Connection, days: float) -> int:
    old = (
        select(sightings.c.id)
        .where(
            sightings.c.incident_id.is_(None),
            sightings.c.seen_at < now_ms(connection) - round(days * _DAY_MS),
        )
        .order_by(sightings.c.seen_at)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
    ids = list(connection.execute(old).scalars())
    if ids:
        _delete(connection, unknown_digests.c.sighting_id, ids)
        _delete(connection, sightings.c.id, ids)
        audit.record(connection, AuditAction.SIGHTINGS_PRUNED, sightings=len(ids), days=days)
    return len(ids)


def _forget_joined(connection: Connection) -> int:
    done = (
        select(unknown_digests.c.sighting_id)
        .join(sightings, sightings.c.id == unknown_digests.c.sighting_id)
        .where(sightings.c.incident_id.is_not(None))
        .limit(_BATCH)
    )
    ids = list(connection.execute(done).scalars())
    _delete(connection, unknown_digests.c.sighting_id, ids)
    return len(ids)


def _delete(connection: Connection, column: Column[str], ids: Sequence[str]) -> None:
    dialect = connection.dialect.name
    statement = delete(column.table).where(among(dialect, column, "ids"))
    connection.execute(statement, {"ids": many(dialect, ids)})
