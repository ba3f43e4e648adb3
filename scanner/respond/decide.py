"""Step 1: the intent. What will be done about an incident is committed before it is done."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine

from scanner.db import audit, freezes, leases, policies, sealed
from scanner.db.clock import now_in
from scanner.db.leases import Claim, Patience
from scanner.db.schema import incidents as table
from scanner.incident import Phase, advance
from scanner.model import AuditAction, Validity
from scanner.policy import Action, Policy, decide
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
_FROZEN = "the store is frozen"


def wait_if_frozen(connection: Connection, claim: Claim, patience: Patience) -> bool:
    """With a frozen store nothing is decided and nothing revoked (threat 12): give the incident
    back until a person releases the store. False: it is not frozen."""
    if not freezes.is_frozen(connection, claim.row["store"]):
        return False
    give_back(connection, claim, _FROZEN, patience)
    return True


def commit_intents(engine: Engine, claims: Sequence[Claim], patience: Patience) -> dict[str, Phase]:
    """Decide the open ones of these incidents, in one transaction. Returns the phase of each by its
    id, also of those that were decided before; without those whose claim was lost or that must
    wait."""
    phases: dict[str, Phase] = {}
    policy_of: dict[tuple[str, str], Policy] = {}
    with engine.begin() as connection:
        stores = {claim.row["store"] for claim in claims}
        frozen = {store for store in stores if freezes.is_frozen(connection, store)}
        for claim in sorted(claims, key=by_token):
            if claim.row["store"] in frozen:
                give_back(connection, claim, _FROZEN, patience)
                continue
            phase: Phase | None = Phase(claim.row["phase"])
            if phase is Phase.OPEN:
                whose = claim.row["store"], claim.row["organisation_id"]
                if whose not in policy_of:
                    policy_of[whose] = policies.current_policy(connection, *whose)
                phase = _decide(connection, claim, policy_of[whose])
            if phase is not None:
                phases[claim.id] = phase
    return phases


def by_token(claim: Claim) -> tuple[str, str]:
    """The order in which a transaction takes several incidents, here as in a scan's verdict: two
    of them must not wait for each other."""
    return claim.row["store"], claim.row["token_id"]


def _decide(connection: Connection, claim: Claim, policy: Policy) -> Phase | None:
    row = claim.row
    decision = decide(Validity(row["validity"]), policy)
    phase = advance(Phase.OPEN, _NEXT[decision.action])
    if not leases.settle(
        connection,
        table,
        claim,
        phase=phase.value,
        policy_version=decision.policy_version,
        intent_at=now_in(connection),
    ):
        return None  # another worker's now, and nothing was changed
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
