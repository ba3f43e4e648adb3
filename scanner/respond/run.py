"""The second use case: from a verified leak to its end, one durable step after another."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from scanner.correlation import correlated
from scanner.db import leases, parking, sealed
from scanner.db.alarms import Topic
from scanner.db.engine import reader
from scanner.db.leases import Claim, Patience
from scanner.db.schema import incidents
from scanner.db.seals import Sealer
from scanner.db.work import taken
from scanner.deadline import Deadline
from scanner.errors import ConfigurationError, FinalError, PatrolError, name_of
from scanner.incident import Phase, cause_of
from scanner.metrics import INCIDENTS, REVOCATIONS
from scanner.model import AuditAction, Secret
from scanner.ports import TokenStore
from scanner.prove import question
from scanner.respond.decide import commit_intent, wait_if_frozen
from scanner.respond.record import record_outcome
from scanner.respond.waiting import give_back

log = logging.getLogger(__name__)

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Responder:
    """Decide, revoke, record; built by bootstrap."""

    engine: Engine
    stores: Mapping[str, TokenStore]
    sealer: Sealer
    patience: Patience

    def run_batch(self, deadline: Deadline | None = None) -> bool:
        """Take a batch of incidents as far as each goes; False: there was nothing to do. Those that
        were not begun before the deadline are handed back."""
        with taken(
            self.engine, incidents, self.patience, limit=_BATCH, on_parked=_tell_parked
        ) as work:
            for claim in work.claims:
                if deadline is not None and deadline.is_over:
                    self._hand_back(claim)
                    continue
                with correlated(claim.row["correlation_id"]):
                    self._try(claim)
        return work.found

    def _try(self, claim: Claim) -> None:
        try:
            self._respond(claim)
        except FinalError as error:
            self._park(claim, str(error))
        except PatrolError as error:
            self._give_back(claim, str(error))
        except Exception as error:  # noqa: BLE001 (a fault of ours must not take neighbours down)
            self._give_back(claim, name_of(error))

    def _respond(self, claim: Claim) -> None:
        phase: Phase | None = Phase(claim.row["phase"])
        if phase is Phase.OPEN:
            phase = commit_intent(self.engine, claim, self.patience)
            if phase is not None:
                _tell_decided(claim, phase)
        elif self._must_wait(claim):  # decided before the store was frozen
            return
        if phase is not Phase.REVOKING:
            return
        store = self.stores.get(claim.row["store"])
        if store is None:
            raise ConfigurationError(f"The store {claim.row['store']} is not configured.")
        # The act: one update, alone, that carries its cause. Repeating it after a kill is safe.
        secret = self._secret(store, claim)
        with question(store, "revoke"):
            cause = cause_of(claim.id, claim.row["reopenings"])
            ours = store.revoke(claim.row["token_id"], cause, secret=secret)
        phase = record_outcome(self.engine, claim, ours=ours)
        if phase is not None:
            log.info("incident %s: %s", claim.id, phase.value)
            REVOCATIONS.add(outcome=phase.value)

    def _secret(self, store: TokenStore, claim: Claim) -> Secret | None:
        """The raw token, for a store that can revoke only with it."""
        if store.abilities.revokes_by != "secret":
            return None
        with reader(self.engine).connect() as connection:
            secret = sealed.held_secret(connection, claim.id, self.sealer)
        if secret is None:
            raise FinalError(
                f"The store {store.name} revokes only with the token itself, which is not held any "
                "more; revoke it there by hand."
            )
        return secret

    def _must_wait(self, claim: Claim) -> bool:
        with self.engine.begin() as connection:
            return wait_if_frozen(connection, claim, self.patience)

    def _hand_back(self, claim: Claim) -> None:
        with self.engine.begin() as connection:
            leases.hand_back(connection, incidents, claim)

    def _give_back(self, claim: Claim, said: str) -> None:
        log.warning("incident %s: %s", claim.id, said)
        with self.engine.begin() as connection:
            give_back(connection, claim, said, self.patience)
        REVOCATIONS.add(outcome="retried")

    def _park(self, claim: Claim, said: str) -> None:
        with self.engine.begin() as connection:
            if parking.park(connection, incidents, claim, said):
                _tell_parked(connection, {**claim.row, "fence": claim.fence, "error": said})


def _tell_decided(claim: Claim, phase: Phase) -> None:
    validity = claim.row["validity"]
    log.info("incident %s: %s", claim.id, phase.value, extra={"validity": validity})
    INCIDENTS.add(validity=validity)
    if phase is not Phase.REVOKING:  # nothing is to be done at a store
        REVOCATIONS.add(outcome=phase.value)


def _tell_parked(connection: Connection, row: Mapping[str, Any]) -> None:
    """A leak whose response stopped must not lie about unseen: the operator is told."""
    with correlated(row["correlation_id"]):
        log.error("incident %s is parked: %s", row["id"], row["error"])
    REVOCATIONS.add(outcome="parked")
    parking.tell(
        connection,
        AuditAction.RESPONSE_PARKED,
        Topic.PARKED_RESPONSES,
        f"Incident {row['id']}",
        row,
        incident_id=row["id"],
        correlation_id=row["correlation_id"],
        organisation_id=row["organisation_id"],
        token_id=row["token_id"],
    )
