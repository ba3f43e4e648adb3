"""Raw tokens that must wait for their verdict: sealed, one row a token and scan (law 1).

A repository may be gone before the store is back, so the token itself waits, not the errand to
fetch it again. A row is wiped in the transaction that records the final verdict; one that expires
before it is wiped as well, and the operator is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    exists,
    func,
    not_,
    select,
    update,
)

from scanner.db.clock import now_in, now_ms
from scanner.db.dialect import upsert
from scanner.db.leases import DONE, PENDING, RUNNING
from scanner.db.schema import incidents, new_id, sealed_candidates
from scanner.db.seals import Sealer, key_of
from scanner.fingerprint import fingerprint
from scanner.incident import Phase
from scanner.keyring import Key
from scanner.model import Candidate, Checksum, LocatedCandidate, ObjectKind, Place, Secret

HELD, EXPIRED = "held", "expired"  # held: until its incident ends, nothing is to be asked
_SECRET_FIELD = "secret"  # noqa: S105 (a field's name)


class Cause(StrEnum):
    """Why a raw token waits."""

    STORE_UNAVAILABLE = "store_unavailable"  # away, or not to be trusted
    UNREADABLE = "unreadable"  # the store answers, but not about this token
    UNCONFIRMED = "unconfirmed"  # the store may not have heard of it yet
    REVOCATION = "revocation"  # the store can revoke only with the token itself


@dataclass(frozen=True, slots=True)
class Waiting:
    """One token and every place of a scan it was seen at, paths masked."""

    secret: Secret
    places: tuple[LocatedCandidate, ...]


def hold(
    connection: Connection,
    scan_id: str,
    waiting: Iterable[Waiting],
    *,
    store: str,
    cause: Cause,
    sealer: Sealer,
    key: Key,
    keep_ms: int,
    first_ms: int = 0,
    incident_id: str | None = None,
) -> int:
    """Seal tokens in the caller's transaction; returns how many rows are new.

    `key` makes the fingerprint; the store is asked after `first_ms`; after `keep_ms` it expires.
    """
    now = now_ms(connection)
    rows = []
    for one in waiting:
        row_id = new_id()
        value = sealer.seal(row_id, {_SECRET_FIELD: one.secret.reveal().hex()})
        rows.append(
            {
                "id": row_id,
                "cause": cause.value,
                "scan_id": scan_id,
                "incident_id": incident_id,
                "store": store,
                "fingerprint": fingerprint(key, one.places[0].candidate.pattern, one.secret),
                "fingerprint_key": key.id,
                "places": [_plain(found) for found in one.places],
                "sealed": value,
                "seal_key": key_of(value),
                "sealed_at": now,
                "expires_at": now + keep_ms,
                "asked": 0,
                "state": PENDING if incident_id is None else HELD,
                "available_at": now + first_ms,
                "attempts": 0,
                "retries": 0,
                "fence": 0,
            }
        )
    if not rows:
        return 0
    statement = upsert(connection, sealed_candidates).on_conflict_do_nothing(
        index_elements=["scan_id", "fingerprint", "cause"]
    )
    return connection.execute(statement, rows).rowcount


def open_waiting(row: Mapping[str, Any], sealer: Sealer) -> Waiting:
    """Unseal a row. Errors: `FinalError` when its key is gone or it was tampered with."""
    secret = Secret(bytes.fromhex(sealer.open(row["id"], row["sealed"])[_SECRET_FIELD]))
    return Waiting(secret, tuple(_located(value, secret) for value in row["places"]))


def places_of(row: Mapping[str, Any]) -> tuple[LocatedCandidate, ...]:
    """The places of a row whose token is gone."""
    return tuple(_located(value, Secret(b"")) for value in row["places"])


def held_secret(connection: Connection, incident_id: str, sealer: Sealer) -> Secret | None:
    """Return the token of an incident whose store revokes only with it; None: none is held."""
    row = connection.execute(_held(incident_id).limit(1)).mappings().one_or_none()
    return None if row is None else open_waiting(dict(row), sealer).secret


def wipe_held(connection: Connection, incident_id: str) -> None:
    """Forget the token of an incident; call it in the transaction that ends the incident."""
    connection.execute(
        update(sealed_candidates)
        .where(sealed_candidates.c.incident_id == incident_id, sealed_candidates.c.state == HELD)
        .values(state=DONE, sealed=None)
    )


def waiting_since(connection: Connection, store: str) -> int | None:
    """Since when, by the database's clock, the first token waits for a store that does not answer;
    None: none waits."""
    first: int | None = connection.execute(
        select(func.min(sealed_candidates.c.sealed_at)).where(
            sealed_candidates.c.store == store,
            sealed_candidates.c.state.in_((PENDING, RUNNING)),
            sealed_candidates.c.cause == Cause.STORE_UNAVAILABLE.value,
        )
    ).scalar_one()
    return first


def postpone(connection: Connection, store: str, until: int) -> None:
    """Ask a store that is away about none of its tokens before `until`."""
    connection.execute(
        update(sealed_candidates)
        .where(
            sealed_candidates.c.store == store,
            sealed_candidates.c.state == PENDING,
            sealed_candidates.c.available_at < until,
        )
        .values(available_at=until)
    )


def expired(connection: Connection, limit: int, live: Collection[str] = ()) -> list[dict[str, Any]]:
    """Wipe what waited for too long, and return its rows: what they waited for did not come.

    What is held for a revocation that is still to be made stays while its key does: `live` are the
    ids of the keys that there are.
    """
    found = (
        connection.execute(
            select(sealed_candidates)
            .where(_is_over(connection, live))
            .order_by(sealed_candidates.c.expires_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        .mappings()
        .all()
    )
    rows = list(map(dict, found))
    connection.execute(
        update(sealed_candidates)
        .where(sealed_candidates.c.id.in_([row["id"] for row in rows]))
        .values(
            state=EXPIRED,
            sealed=None,
            lease_until=None,
            # A worker that holds it just now must not write a verdict of its own.
            fence=sealed_candidates.c.fence + 1,
        )
    )
    return rows


def any_expired(connection: Connection, live: Collection[str] = ()) -> bool:
    """True when there is something for `expired` to wipe."""
    found = connection.execute(
        select(sealed_candidates.c.id).where(_is_over(connection, live)).limit(1)
    )
    return found.first() is not None


def is_ending(connection: Connection) -> ColumnElement[bool]:
    """The condition of rows of which less than a quarter of their time is left, while a revocation
    still needs them."""
    ends = sealed_candidates.c.expires_at
    left, all_of_it = ends - now_in(connection), ends - sealed_candidates.c.sealed_at
    return and_(_unwiped(), sealed_candidates.c.state == HELD, left * 4 <= all_of_it, _is_needed())


def newest_ending(connection: Connection) -> RowMapping | None:
    """The row for which `is_ending` has been true for the shortest time."""
    query = select(sealed_candidates).where(is_ending(connection))
    begun = sealed_candidates.c.expires_at * 3 + sealed_candidates.c.sealed_at  # quarters
    return connection.execute(query.order_by(begun.desc()).limit(1)).mappings().first()


def waiting_count(connection: Connection, store: str) -> int:
    """Return how many tokens wait for the store's answer."""
    return connection.execute(
        select(func.count())
        .select_from(sealed_candidates)
        .where(sealed_candidates.c.store == store, _unwiped())
    ).scalar_one()


def _is_over(connection: Connection, live: Collection[str]) -> ColumnElement[bool]:
    over = and_(_unwiped(), sealed_candidates.c.expires_at <= now_ms(connection))
    return and_(over, not_(and_(sealed_candidates.c.seal_key.in_(live), _is_needed())))


def _is_needed() -> ColumnElement[bool]:
    """Held for a revocation that is still to be made: it is not where it is left to the owner."""
    return exists().where(
        sealed_candidates.c.cause == Cause.REVOCATION.value,
        incidents.c.id == sealed_candidates.c.incident_id,
        incidents.c.phase.in_([Phase.OPEN.value, Phase.REVOKING.value]),
    )


def _unwiped() -> ColumnElement[bool]:
    return sealed_candidates.c.sealed.is_not(None)


def _held(incident_id: str) -> Any:
    return select(sealed_candidates).where(
        and_(sealed_candidates.c.incident_id == incident_id, sealed_candidates.c.state == HELD)
    )


def _plain(found: LocatedCandidate) -> dict[str, Any]:
    candidate = {
        name: value for name, value in _fields(found.candidate).items() if name != _SECRET_FIELD
    }
    place = asdict(found.place)
    moment = found.place.committed_at
    place["committed_at"] = None if moment is None else moment.isoformat()
    return {"candidate": candidate, "place": place}


def _fields(candidate: Candidate) -> dict[str, Any]:
    # Not asdict(): it copies what it finds, and a Secret refuses to be copied.
    return {name: getattr(candidate, name) for name in Candidate.__dataclass_fields__}


def _located(value: Mapping[str, Any], secret: Secret) -> LocatedCandidate:
    candidate, place = dict(value["candidate"]), dict(value["place"])
    candidate["checksum"] = Checksum(candidate["checksum"])
    place["kind"] = ObjectKind(place["kind"])
    if place["committed_at"] is not None:
        place["committed_at"] = datetime.fromisoformat(place["committed_at"])
    return LocatedCandidate(Candidate(secret=secret, **candidate), Place(**place))
