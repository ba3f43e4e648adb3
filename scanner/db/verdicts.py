"""Writing down what a scan found: incidents, sightings, audit events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from scanner.db import audit, incidents
from scanner.db.reopening import fresh, meet_again
from scanner.keyring import Key
from scanner.model import AuditAction, LocatedCandidate, Lookup, TokenRecord, Validity

_MOST_PATH = 1_000  # characters kept
_MOST_PATH_BYTES = 2_000  # PostgreSQL's index takes no more of a row than 2,704 bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """A candidate at a place, and what the store said of it. `path` is masked already."""

    found: LocatedCandidate
    lookup: Lookup
    path: str


@dataclass(frozen=True, slots=True)
class Met:
    """The token of an incident that was met. `doubted_ms`: in how many milliseconds its store has
    to be asked again, None: what it said is taken for true."""

    token: TokenRecord
    doubted_ms: int | None = None


def kept_path(path: str) -> str:
    """Return a masked path as it is stored: of any bytes, and of bounded length."""
    short = path.encode("utf-8", "backslashreplace").decode()[:_MOST_PATH]
    return short.encode()[:_MOST_PATH_BYTES].decode("utf-8", "ignore")


def record_findings(
    connection: Connection,
    scan: Mapping[str, Any],
    findings: Iterable[Finding],
    keys: Sequence[Key],
) -> dict[str, Met]:
    """Record what `scan` (its row) found, in the caller's transaction, which holds all of it.

    A finding that the store does not know is kept as a fingerprint under the newest of `keys`; a
    known one opens its token's incident or joins it, together with earlier sightings of the token
    from before the store knew it; one that works again has its incident opened anew. Returns the
    token of every incident met, by the incident's id.
    """
    known: list[Finding] = []
    unknown: list[Finding] = []
    for finding in findings:
        (unknown if finding.lookup.token is None else known).append(finding)
    incidents.add_unknown_sightings(
        connection, scan, [(one.found, one.lookup, kept_path(one.path)) for one in unknown], keys[0]
    )
    met: dict[str, Met] = {}
    # In one order everywhere: two scans of the same tokens must not wait for each other.
    known = [
        replace(one, lookup=fresh(connection, one.lookup)) for one in sorted(known, key=_order)
    ]
    for finding in known:
        token = finding.lookup.token
        if token is None:
            continue
        incident_id, is_new = incidents.open_incident(connection, finding.lookup, scan["id"])
        joined, is_first = 0, is_new and incident_id not in met
        if incident_id not in met:
            joined = incidents.join_by_fingerprint(
                connection, incident_id, finding.found.candidate, finding.lookup, keys
            )
            wait_ms = None if is_new else meet_again(connection, incident_id, finding.lookup)
            met[incident_id] = Met(token, wait_ms)
        added = incidents.add_sighting(
            connection,
            incident_id=incident_id,
            scan=scan,
            found=finding.found,
            lookup=finding.lookup,
            path=kept_path(finding.path),
            key=keys[0],
            is_first=is_first,
        )
        if (added or joined) and not is_new:
            audit.record(
                connection,
                AuditAction.LEAK_SEEN_AGAIN,
                organisation_id=token.organisation_id,
                incident_id=incident_id,
                token_id=token.token_id,
                correlation_id=scan["id"],
            )
    return met


def record_unproved(
    connection: Connection,
    scan: Mapping[str, Any],
    places: Sequence[LocatedCandidate],
    sealed: Mapping[str, Any],
) -> None:
    """Record the places of a token that no store answered for, under the fingerprint that its
    sealed row has."""
    incidents.add_unproved_sightings(
        connection,
        scan,
        [(one, kept_path(one.place.path or "")) for one in places],
        Lookup(Validity.STORE_UNAVAILABLE),
        {name: sealed[name] for name in ("fingerprint", "fingerprint_key")},
    )


def _order(finding: Finding) -> tuple[str, str]:
    token = finding.lookup.token
    return ("", "") if token is None else (token.store, token.token_id)
