"""Which keys are still needed: what was made with each, and is not over."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Column, Connection, Table, func, select

from scanner.db import chains
from scanner.db.schema import scans, sealed_candidates, sightings, tokens, unknown_digests


def key_usage(connection: Connection) -> dict[str, Counter[str]]:
    """Return, by ring, how many rows need each key.

    Peppers: digests, of which a chain needs each of its keys. Fingerprints: places whose token no
    store knows yet. Seals: what waits.
    """
    waiting = sealed_candidates.c.sealed.is_not(None)
    usage: dict[str, Counter[str]] = {"pepper": Counter(), "fingerprint": Counter()}
    in_full = chains.by_name(connection)
    for table in (tokens, unknown_digests):
        for name, count in _count(connection, table, table.c.key_id, True).items():
            for key_id in in_full.get(name, name).split(">"):
                usage["pepper"][key_id] += count
    unknown = sightings.c.incident_id.is_(None)
    usage["fingerprint"] = _count(connection, sightings, sightings.c.fingerprint_key, unknown)
    usage["fingerprint"] += _count(
        connection, sealed_candidates, sealed_candidates.c.fingerprint_key, waiting
    )
    usage["seal"] = _count(connection, sealed_candidates, sealed_candidates.c.seal_key, waiting)
    usage["seal"] += _count(connection, scans, scans.c.seal_key, scans.c.sealed.is_not(None))
    return usage


def _count(
    connection: Connection, table: Table, key: Column[str], condition: object
) -> Counter[str]:
    query = select(key, func.count()).select_from(table).group_by(key)
    if condition is not True:
        query = query.where(condition)  # type: ignore[arg-type]
    return Counter({row[0]: row[1] for row in connection.execute(query) if row[0] is not None})
