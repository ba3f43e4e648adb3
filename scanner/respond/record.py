"""Step 3: the record. Audit and notices follow from what the store says now, not from memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from scanner.db import audit, leases, sealed
from scanner.db.clock import now_ms
from scanner.db.leases import Claim
from scanner.db.schema import incidents as table
from scanner.incident import Phase, advance
from scanner.metrics import HIT_TO_REVOKED
from scanner.model import AuditAction
from scanner.respond.decide import by_token
from scanner.respond.tell import enqueue_leak_notice


@dataclass(frozen=True, slots=True)
class Act:
    """A revocation that was done; `ours`: by us, now or before a crash."""

    claim: Claim
    ours: bool


def record_outcomes(engine: Engine, acts: Sequence[Act]) -> dict[str, Phase]:
    """Write the outcomes of revocations once, in one transaction; returns the phases by incident,
    without those whose claim was lost meanwhile."""
    phases: dict[str, Phase] = {}
    with engine.begin() as connection:
        now = now_ms(connection)
        for act in sorted(acts, key=lambda act: by_token(act.claim)):
            phase = advance(Phase.REVOKING, Phase.REVOKED if act.ours else Phase.ALREADY_REVOKED)
            if _record(connection, act, phase, now):
                phases[act.claim.id] = phase
    for act in acts:
        if act.ours and act.claim.id in phases:
            row = act.claim.row
            HIT_TO_REVOKED.note((now - (row["reopened_at"] or row["opened_at"])) / 1000)
    return phases


def _record(connection: Connection, act: Act, phase: Phase, now: int) -> bool:
    row = act.claim.row
    if not leases.finish(
        connection, table, act.claim, leases.DONE, phase=phase.value, revoked_at=now, error=None
    ):
        return False
    sealed.wipe_held(connection, row["id"])
    audit.record(
        connection,
        AuditAction.TOKEN_REVOKED if act.ours else AuditAction.REVOCATION_NOT_NEEDED,
        organisation_id=row["organisation_id"],
        incident_id=row["id"],
        token_id=row["token_id"],
        correlation_id=row["correlation_id"],
        reason="leaked in public" if act.ours else "somebody revoked it first",
        mask=row["token"]["mask"],
    )
    # People were told of its end before; if nothing was to be revoked now, it only seemed to work,
    # and there is no more to tell.
    if act.ours or not row["reopenings"]:
        enqueue_leak_notice(
            connection, row, outcome="revoked" if act.ours else "already_revoked", revoked_at=now
        )
    return True
