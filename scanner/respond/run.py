"""The second use case: from a verified leak to its end, one durable step after another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from scanner.db import leases
from scanner.db.leases import Claim
from scanner.db.schema import incidents
from scanner.errors import FinalError, PatrolError
from scanner.incident import Phase
from scanner.ports import TokenStore
from scanner.respond.decide import commit_intent
from scanner.respond.record import record_outcome

log = logging.getLogger(__name__)

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Responder:
    """Decide, revoke, record; built by bootstrap."""

    engine: Engine
    stores: Mapping[str, TokenStore]
    lease_ms: int
    max_attempts: int

    def run_batch(self) -> int:
        """Claim a batch of incidents and take each as far as it goes; returns rows touched."""
        with self.engine.begin() as connection:
            claims, parked = leases.claim(
                connection,
                incidents,
                limit=_BATCH,
                lease_ms=self.lease_ms,
                max_attempts=self.max_attempts,
            )
        for row in parked:
            log.error("incident %s is parked: %s", row["id"], row["error"])
        for claim in claims:
            try:
                self._respond(claim)
            except PatrolError as error:
                self._give_back(claim, error)
        return len(claims) + len(parked)

    def _respond(self, claim: Claim) -> None:
        phase: Phase | None = Phase(claim.row["phase"])
        if phase is Phase.OPEN:
            phase = commit_intent(self.engine, claim)
        if phase is not Phase.REVOKING:
            return
        # The act: one update, alone, that carries its cause. Repeating it after a kill is safe.
        store = self.stores[claim.row["store"]]
        ours = store.revoke(claim.row["token_id"], claim.id)
        record_outcome(self.engine, claim, ours=ours)

    def _give_back(self, claim: Claim, error: PatrolError) -> None:
        log.warning("incident %s: %s", claim.id, error)
        with self.engine.begin() as connection:
            if isinstance(error, FinalError):
                leases.finish(connection, incidents, claim, leases.PARKED, error=str(error)[:500])
            else:
                leases.release(connection, incidents, claim, str(error))
