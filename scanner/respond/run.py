"""The second use case: from a verified leak to its end, one durable step after another."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from sqlalchemy import Connection, Engine

from scanner.correlation import correlated
from scanner.db import leases, parking, sealed
from scanner.db.alarms import Topic
from scanner.db.engine import reader
from scanner.db.leases import Claim, Patience
from scanner.db.schema import incidents
from scanner.db.seals import Sealer
from scanner.db.work import Found, taken
from scanner.deadline import Deadline
from scanner.errors import ConfigurationError, FinalError, PatrolError, name_of
from scanner.incident import Phase, cause_of
from scanner.metrics import INCIDENTS, REVOCATIONS
from scanner.model import AuditAction, Secret
from scanner.ports import TokenStore
from scanner.prove import question
from scanner.respond.decide import commit_intents, wait_if_frozen
from scanner.respond.record import Act, record_outcomes
from scanner.respond.waiting import give_back

log = logging.getLogger(__name__)

_BATCH = 64
_GROUP = 16  # incidents of one intent's commit, and of one record's
_FRESH_SECONDS = 0.2  # so long an intent's look at the store's freeze counts, and a record may wait


@dataclass(frozen=True, slots=True)
class Responder:
    """Decide, revoke, record; built by bootstrap."""

    engine: Engine
    stores: Mapping[str, TokenStore]
    sealer: Sealer
    patience: Patience

    def run_batch(self, deadline: Deadline | None = None) -> Found:
        """Take a batch of incidents as far as each goes; false: there was nothing to do. Those that
        were not begun before the deadline are handed back.

        Incidents that come together share the commits of their intents and of their records, so
        that a burst is over sooner; each revocation is a step of its own (law 4).
        """
        until = deadline or Deadline()
        with taken(
            self.engine, incidents, self.patience, limit=_BATCH, on_parked=_tell_parked
        ) as work:
            for begin in range(0, len(work.claims), _GROUP):
                self._respond(work.claims[begin : begin + _GROUP], until)
        return work.found

    def _respond(self, claims: Sequence[Claim], deadline: Deadline) -> None:
        if deadline.is_over:
            for claim in claims:
                self._hand_back(claim)
            return
        looked = monotonic()
        acts: list[Act] = []
        for claim in self._decide(claims):
            if deadline.is_over:
                self._hand_back(claim)
                continue
            if monotonic() - looked > _FRESH_SECONDS:  # a store that takes its time
                self._record(acts)
                acts = []
                if self._must_wait(claim):
                    continue
                looked = monotonic()
            with correlated(claim.row["correlation_id"]):
                acts += self._act(claim)
        self._record(acts)

    def _decide(self, claims: Sequence[Claim]) -> list[Claim]:
        """Commit the intents; returns the claims whose token is to be revoked."""
        try:
            phases = commit_intents(self.engine, claims, self.patience)
        except Exception as error:  # noqa: BLE001 (a fault of ours must not take neighbours down)
            if len(claims) == 1:
                self._failed(claims[0], error)
                return []
            log.warning("%d intents were not taken together: %s", len(claims), name_of(error))
            return [one for claim in claims for one in self._decide([claim])]
        for claim in claims:
            if claim.id in phases and claim.row["phase"] == Phase.OPEN:
                _tell_decided(claim, phases[claim.id])
        return [one for one in claims if phases.get(one.id) is Phase.REVOKING]

    def _act(self, claim: Claim) -> list[Act]:
        """One update, alone, that carries its cause. Repeating it after a kill is safe."""
        try:
            store = self._store_of(claim)
            secret = self._secret(store, claim)
            cause = cause_of(claim.id, claim.row["reopenings"])
            with question(store, "revoke"):
                ours = store.revoke(claim.row["token_id"], cause, secret=secret)
        except Exception as error:  # noqa: BLE001 (a fault of ours must not take neighbours down)
            self._failed(claim, error)
            return []
        return [Act(claim, ours)]

    def _store_of(self, claim: Claim) -> TokenStore:
        store = self.stores.get(claim.row["store"])
        if store is None:
            raise ConfigurationError(f"The store {claim.row['store']} is not configured.")
        return store

    def _record(self, acts: Sequence[Act]) -> None:
        if not acts:
            return
        try:
            phases = record_outcomes(self.engine, acts)
        except Exception as error:  # noqa: BLE001 (a fault of ours must not take neighbours down)
            if len(acts) == 1:
                self._failed(acts[0].claim, error)
                return
            log.warning("%d outcomes were not taken together: %s", len(acts), name_of(error))
            for act in acts:
                self._record([act])
            return
        for act in acts:
            if phase := phases.get(act.claim.id):
                with correlated(act.claim.row["correlation_id"]):
                    log.info("incident %s: %s", act.claim.id, phase.value)
                REVOCATIONS.add(outcome=phase.value)

    def _failed(self, claim: Claim, error: Exception) -> None:
        with correlated(claim.row["correlation_id"]):
            if isinstance(error, FinalError):
                self._park(claim, str(error))
            else:
                said = str(error) if isinstance(error, PatrolError) else name_of(error)
                self._give_back(claim, said)

    def _secret(self, store: TokenStore, claim: Claim) -> Secret | None:
        """The raw token, for a store that can revoke only with it."""
        if store.abilities.revokes_by != "secret":
            return None
        with reader(self.engine).connect() as connection:
            secret = sealed.held_secret(connection, claim.id, self.sealer)
        if secret is None:
            raise FinalError(
                f"The store {store.name} revokes only with the token itself, which is not held any "
                "more. As far as is known the token is still active: revoke it there by hand."
            )
        return secret

    def _must_wait(self, claim: Claim) -> bool:
        """True: not now, because the store was frozen meanwhile or cannot be asked about."""
        try:
            with self.engine.begin() as connection:
                return wait_if_frozen(connection, claim, self.patience)
        except Exception as error:  # noqa: BLE001 (a fault of ours must not take neighbours down)
            self._failed(claim, error)
            return True

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
    with correlated(claim.row["correlation_id"]):
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
