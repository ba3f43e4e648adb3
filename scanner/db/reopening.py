"""A token that had expired when its leak was found, and works again: its incident is open anew."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from scanner.db import audit
from scanner.db.clock import now_ms
from scanner.db.incidents import plain_token
from scanner.db.leases import PENDING
from scanner.db.schema import incidents, tokens
from scanner.db.tokens import BUILT_IN, Row, select_tokens, to_lookup
from scanner.incident import Phase, advance
from scanner.model import AuditAction, Lookup, Validity

_WORKS = (Validity.ACTIVE, Validity.OWNER_DISABLED)


def reopen(connection: Connection, token: Row, actor: str) -> str | None:
    """Let the policy answer a leak that was not worth it; returns the incident's id, None: there is
    none. `token` is the token's row as it is now, in the transaction that changed it.
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
    phase = Phase(row["phase"])
    connection.execute(
        update(incidents)
        .where(incidents.c.id == row["id"])
        .values(
            phase=(phase if phase is Phase.OPEN else advance(phase, Phase.OPEN)).value,
            validity=lookup.validity.value,
            token=plain_token(lookup.token),
            state=PENDING,
            available_at=now_ms(connection),
            attempts=0,
            retries=0,
            lease_until=None,
            # A worker that holds it decides on what is not so any more.
            fence=incidents.c.fence + 1,
            policy_version=None,
            intent_at=None,
            error=None,
        )
    )
    audit.record(
        connection,
        AuditAction.LEAK_REOPENED,
        actor=actor,
        organisation_id=row["organisation_id"],
        incident_id=row["id"],
        token_id=row["token_id"],
        correlation_id=row["correlation_id"],
        reason="its token had expired and works again",
        validity=lookup.validity.value,
    )
    return str(row["id"])


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
