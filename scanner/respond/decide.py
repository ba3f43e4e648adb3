"""Step 1: the intent. What will be done about an incident is committed before it is done."""

from __future__ import annotations

from sqlalchemy import Connection, Engine

from scanner.db import audit, freezes, leases, policies, sealed
from scanner.db.clock import now_in
from scanner.db.leases import Claim, Patience
from scanner.db.schema import incidents as table
from scanner.incident import Phase, advance
from scanner.model import AuditAction, Validity
from scanner.policy import Action, decide
from scanner.respond.tell import enqueue_leak_notice
from scanner.respond.waiting import give_back

_NEXT = {
    Action.REVOKE: Phase.REVOKING,
    Action.NOTIFY: Phase.STILL_ACTIVE,
    Action.RECORD: Phase.NOT_NEEDED,
}
_EVENT = {
    Action.REVOKE: AuditAction.REVOCATION_DECIDED,
    Action.NOTIFY: AuditAction.REVOCATION_WITHHELD,
    Action.RECORD: AuditAction.REVOCATION_NOT_NEEDED,
}


def wait_if_frozen(connection: Connection, claim: Claim, patience: Patience) -> bool:
    """With a frozen store nothing is decided and nothing revoked (threat 12): give the incident
    back until a person releases the store. False: it is not frozen."""
    if not freezes.is_frozen(connection, claim.row["store"]):
        return False
    give_back(connection, claim, "the store is frozen", patience)
    return True


def commit_intent(engine: Engine, claim: Claim, patience: Patience) -> Phase | None:
    """Decide an open incident; returns its new phase, None when the claim was lost or must wait."""
    row = claim.row
    with engine.begin() as connection:
        if wait_if_frozen(connection, claim, patience):
            return None
        policy = policies.current_policy(connection, row["store"], row["organisation_id"])
        decision = decide(Validity(row["validity"]), policy)
        phase = advance(Phase(row["phase"]), _NEXT[decision.action])
        if not leases.settle(
            connection,
            table,
            claim,
            phase=phase.value,
            policy_version=decision.policy_version,
            intent_at=now_in(connection),
        ):
            connection.rollback()
            return None
        audit.record(
            connection,
            _EVENT[decision.action],
            organisation_id=row["organisation_id"],
            incident_id=row["id"],
            token_id=row["token_id"],
            correlation_id=row["correlation_id"],
            policy_version=decision.policy_version,
            reason=decision.reason,
        )
        if phase is not Phase.REVOKING:
            if phase is Phase.STILL_ACTIVE:
                enqueue_leak_notice(connection, row, outcome="still_active", revoked_at=None)
            else:
                sealed.wipe_held(connection, row["id"])
            leases.finish(connection, table, claim, leases.DONE, error=None)
    return phase
