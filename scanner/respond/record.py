"""Step 3: the record. Audit and notices follow from what the store says now, not from memory."""

from __future__ import annotations

from sqlalchemy import Engine

from scanner.db import audit, leases, sealed
from scanner.db.clock import now_ms
from scanner.db.leases import Claim
from scanner.db.schema import incidents as table
from scanner.incident import Phase, advance
from scanner.metrics import HIT_TO_REVOKED
from scanner.model import AuditAction
from scanner.respond.tell import enqueue_leak_notice


def record_outcome(engine: Engine, claim: Claim, *, ours: bool) -> Phase | None:
    """Write the outcome of a revocation once; None when the claim was lost meanwhile."""
    row = claim.row
    phase = advance(Phase.REVOKING, Phase.REVOKED if ours else Phase.ALREADY_REVOKED)
    with engine.begin() as connection:
        now = now_ms(connection)
        if not leases.finish(
            connection, table, claim, leases.DONE, phase=phase.value, revoked_at=now, error=None
        ):
            connection.rollback()
            return None
        sealed.wipe_held(connection, row["id"])
        audit.record(
            connection,
            AuditAction.TOKEN_REVOKED if ours else AuditAction.REVOCATION_NOT_NEEDED,
            organisation_id=row["organisation_id"],
            incident_id=row["id"],
            token_id=row["token_id"],
            correlation_id=row["correlation_id"],
            reason="leaked in public" if ours else "somebody revoked it first",
            mask=row["token"]["mask"],
        )
        # People were told of its end before; if nothing was to be revoked now, it only seemed to
        # work, and there is no more to tell.
        if ours or not row["reopenings"]:
            enqueue_leak_notice(
                connection, row, outcome="revoked" if ours else "already_revoked", revoked_at=now
            )
    if ours:
        HIT_TO_REVOKED.note((now - (row["reopened_at"] or row["opened_at"])) / 1000)
    return phase
