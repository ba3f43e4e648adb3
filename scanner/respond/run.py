"""The second use case: from a verified leak to its end, one durable step after another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from scanner.db import leases
from scanner.db.leases import Claim, Patience
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
    patience: Patience

    def run_batch(self) -> bool:
        """Take a batch of incidents as far as each goes; False: there was nothing to do."""
        worked = False
        for claims in leases.take(
            self.engine, incidents, self.patience, limit=_BATCH, on_parked=_report
        ):
            worked = True
            for claim in claims:
                try:
                    self._respond(claim)
                except PatrolError as error:
                    self._give_back(claim, error)
        return worked

    def _respond(self, claim: Claim) -> None:
        phase: Phase | None = Phase(claim.row["phase"])
        if phase is Phase.OPEN:
            phase = commit_intent(self.engine, claim, self.patience)
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
                leases.release(connection, incidents, claim, str(error), self.patience)


def _report(_connection: Connection, row: Mapping[str, Any]) -> None:
    log.error("incident %s is parked: %s", row["id"], row["error"])
