"""A token that works although its incident has ended, or its response has stopped: the incident is
open anew, on its own row, which has all its sightings.

A look-up that says "works" soon after the end may come from a replica that has not heard of it, or
be older than the end. So it is doubted for a while, longer each time, and then asked again.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from scanner.db import audit, policies
from scanner.db.clock import now_ms
from scanner.db.incidents import plain_token
from scanner.db.leases import PARKED, PENDING
from scanner.db.schema import incidents, tokens
from scanner.db.tokens import BUILT_IN, Row, select_tokens, to_lookup
from scanner.incident import ENDED, Phase, advance
from scanner.model import AuditAction, Lookup, Validity
from scanner.policy import Action, decide

_WORKS = (Validity.ACTIVE, Validity.OWNER_DISABLED)
_DOUBT_MS = 30 * 60_000  # after an end; four times as long after each reopening
_LONGEST_DOUBT_MS = 86_400_000


def reopen(connection: Connection, token: Row, actor: str) -> str | None:
    """Let the policy answer a leak that was not worth it; returns the incident's id, None: there is
    none. `token` is the built-in store's row as it is now, in the transaction that changed it.
    """
    lookup = to_lookup(token)
    if lookup.validity not in _WORKS or lookup.token is None:
        return None
    query = select(incidents).where(
        incidents.c.store == BUILT_IN,
        incidents.c.token_id == token["id"],
        incidents.c.validity == Validity.EXPIRED.value,
        incidents.c.phase.in_([Phase.OPEN.value, Phase.NOT_NEEDED.value]),
    )
    row = connection.execute(query.with_for_update()).mappings().first()
    if row is None:
        return None
    _open(connection, row, lookup, "its token had expired and works again", actor=actor)
    return str(row["id"])


def meet_again(connection: Connection, incident_id: str, lookup: Lookup) -> int | None:
    """The token of an incident is seen again, and the store says `lookup` of it: answer it where it
    works although nothing is being done about it. Call it in the transaction of the sighting.

    Returns in how many milliseconds the store has to be asked again, because the answer is doubted;
    None: that is not needed.
    """
    if lookup.validity not in _WORKS or lookup.token is None:
        return None
    query = select(incidents).where(incidents.c.id == incident_id)
    row = connection.execute(query).mappings().one()
    if row["state"] != PARKED and _is_going_on(row):
        return None  # nearly always: nobody has to wait for it
    row = connection.execute(query.with_for_update()).mappings().one()
    wait_ms = _doubt(connection, row)
    if wait_ms is None:
        _answer(connection, row, lookup)
    return wait_ms


def _answer(connection: Connection, row: RowMapping, lookup: Lookup) -> None:
    phase = Phase(row["phase"])
    if _is_going_on(row):
        if row["state"] == PARKED and row["attempts"] <= 1:  # else it may have killed its worker
            _open(connection, row, lookup, "its response had stopped", phase=phase)
    elif phase is Phase.STILL_ACTIVE:
        policy = policies.current_policy(connection, row["store"], row["organisation_id"])
        if decide(lookup.validity, policy).action is Action.REVOKE:
            _open(connection, row, lookup, "the policy revokes it now", tell=True)
    elif row["store"] != BUILT_IN:  # which never lets a revoked one work, and reopens by itself
        reason = f"its token was {_was(row)} and works again"
        _open(connection, row, lookup, reason, tell=phase in ENDED)


def doubted_ms(connection: Connection, lookup: Lookup) -> int | None:
    """What `meet_again` would return for a token that has an incident; changes nothing."""
    token = lookup.token
    if lookup.validity not in _WORKS or token is None:
        return None
    query = select(incidents).where(
        incidents.c.store == token.store, incidents.c.token_id == token.token_id
    )
    row = connection.execute(query.with_for_update()).mappings().first()
    return None if row is None else _doubt(connection, row)


def fresh(connection: Connection, lookup: Lookup) -> Lookup:
    """Return what the built-in store says now of a token that had expired when it was asked.

    Whoever prolongs it meanwhile either is seen here, or waits for the caller's transaction and
    finds its incident.
    """
    token = lookup.token
    if lookup.validity is not Validity.EXPIRED or token is None or token.store != BUILT_IN:
        return lookup
    query = select_tokens(connection.dialect.name).where(tokens.c.id == token.token_id)
    row = connection.execute(query.with_for_update(read=True, of=tokens)).mappings().first()
    return lookup if row is None else to_lookup(row)


def _is_going_on(row: RowMapping) -> bool:
    """Something is being done, or will be, about a token that works."""
    phase = Phase(row["phase"])
    return phase is Phase.REVOKING or (phase is Phase.OPEN and Validity(row["validity"]) in _WORKS)


def _was(row: RowMapping) -> str:
    return "revoked" if Phase(row["phase"]) in ENDED else str(row["validity"])


def _doubt(connection: Connection, row: RowMapping) -> int | None:
    """Milliseconds for which nobody believes that the incident's token works; None: it may."""
    if _was(row) != Validity.REVOKED.value or row["store"] == BUILT_IN:
        return None  # no replica makes an expired token work, and the built-in store has none
    ended_at = row["revoked_at"] or row["intent_at"] or row["opened_at"]
    doubt = min(_DOUBT_MS * 4 ** min(row["reopenings"], 3), _LONGEST_DOUBT_MS)
    left = int(ended_at + doubt - now_ms(connection))
    return left if left > 0 else None


def _open(
    connection: Connection,
    row: RowMapping,
    lookup: Lookup,
    reason: str,
    *,
    actor: str = audit.SYSTEM,
    phase: Phase | None = None,
    tell: bool = False,
) -> None:
    """Put an incident back to work in `phase`, or in its first. `tell`: people were told of its
    end, so what follows is told anew."""
    if lookup.token is None:
        raise ValueError("only a proved token has an incident")
    before = Phase(row["phase"])
    if phase is None:
        phase = before if before is Phase.OPEN else advance(before, Phase.OPEN)
    values: dict[str, Any] = {
        "phase": phase.value,
        "state": PENDING,
        "available_at": now_ms(connection),
        "attempts": 0,
        "retries": 0,
        "lease_until": None,
        "fence": incidents.c.fence + 1,  # a worker that holds it decides on what is not so any more
        "error": None,
    }
    if phase is Phase.OPEN:
        values |= {
            "validity": lookup.validity.value,
            "token": plain_token(lookup.token),
            "policy_version": None,
            "intent_at": None,
            "revoked_at": None,
        }
    if tell:
        values |= {"reopenings": incidents.c.reopenings + 1, "reopened_at": now_ms(connection)}
    connection.execute(update(incidents).where(incidents.c.id == row["id"]).values(**values))
    audit.record(
        connection,
        AuditAction.LEAK_REOPENED,
        actor=actor,
        organisation_id=row["organisation_id"],
        incident_id=row["id"],
        token_id=row["token_id"],
        correlation_id=row["correlation_id"],
        reason=reason,
        validity=lookup.validity.value,
    )
