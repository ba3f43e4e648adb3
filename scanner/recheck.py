"""The second asking: sealed tokens get the verdict that could not be had when they were found.

A store that was away is asked again until it answers or the seal expires; one that did not know a
token is asked again for a day. A token that it cannot answer for, while it answers for others,
waits by itself: nobody's token keeps others from their verdict. The verdict, and the wiping of the
token, are one transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine

from scanner.correlation import correlated
from scanner.db import (
    alarms,
    freezes,
    leases,
    parking,
    reopening,
    sealed,
)
from scanner.db.alarms import AWAY_MS, Topic
from scanner.db.clock import now_ms, to_iso
from scanner.db.engine import DATABASE_AWAY
from scanner.db.expiry import expire, scan_of
from scanner.db.leases import Claim, Patience
from scanner.db.schema import sealed_candidates
from scanner.db.sealed import Cause, Waiting
from scanner.db.verdicts import Finding
from scanner.db.work import Found, taken
from scanner.deadline import Deadline
from scanner.errors import FinalError, name_of
from scanner.judge import RECHECK_MS, Judge, Judged
from scanner.metrics import SEALED
from scanner.model import AuditAction, Lookup, Secret, Validity

log = logging.getLogger(__name__)

_BATCH = 64
_MOST_FAILURES = 16  # look-ups of one batch that got no answer
_AWAY_MS = 15_000  # a store that did not answer is left alone for so long


@dataclass(frozen=True, slots=True)
class Rechecker:
    """Asks the store about tokens that wait; built by bootstrap."""

    engine: Engine
    judge: Judge
    patience: Patience

    def run_batch(self, deadline: Deadline | None = None) -> Found:
        """Ask about a batch of tokens, if there is time; false: there was nothing to do."""
        if deadline is not None and deadline.is_over:
            return Found.NOTHING
        expired = expire(self.engine, self.judge.sealer.key_ids, _BATCH)
        with taken(
            self.engine, sealed_candidates, self.patience, limit=_BATCH, on_parked=_tell_parked
        ) as work:
            self._ask({claim.id: claim for claim in work.claims}, deadline)
        return Found.SOME if expired else work.found

    def _ask(self, claims: Mapping[str, Claim], deadline: Deadline | None) -> None:
        waiting: dict[str, Waiting] = {}
        for claim in claims.values():
            try:
                waiting[claim.id] = sealed.open_waiting(claim.row, self.judge.sealer)
            except FinalError as error:
                self._park(claim, str(error))
        answers = self._answers([one.secret for one in waiting.values()], deadline)
        if answers is None:
            self._wait([claims[row_id] for row_id in waiting])
            return
        for row_id, one in waiting.items():
            claim, lookup = claims[row_id], answers.get(one.secret)
            if lookup is None:  # there was no time for it
                self._hand_back(claim)
                continue
            try:
                if lookup.validity is Validity.STORE_UNAVAILABLE:
                    self._wait_alone(claim)
                else:
                    self._record(claim, one, lookup)
            except Exception as error:  # noqa: BLE001 (one must not take its neighbours down)
                # The database, or a fault of ours: only the latter may be this row's doing.
                self._give_back(claim, name_of(error), blame=not isinstance(error, DATABASE_AWAY))

    def _answers(
        self, secrets: Sequence[Secret], deadline: Deadline | None
    ) -> dict[Secret, Lookup] | None:
        """What the store says; None: it is away, or frozen. A token of which nothing is said in
        time is left out."""
        answers = self.judge.ask(secrets)
        if answers is not None or not self.judge.is_answered():
            return answers
        # It answers, so some of these are the cause: found by halves, the others get their verdict.
        answers, lots, failures = {}, _halves(secrets), 0
        while lots and failures < _MOST_FAILURES and not (deadline and deadline.is_over):
            lot = lots.pop()
            said = self.judge.ask(lot) if len(lot) < len(secrets) else None
            if said is not None:
                answers.update(said)
            elif len(lot) == 1:
                answers[lot[0]] = Lookup(Validity.STORE_UNAVAILABLE)
            else:
                lots += _halves(lot)
            failures += said is None
        return answers

    def _hand_back(self, claim: Claim) -> None:
        with self.engine.begin() as connection:
            leases.hand_back(connection, sealed_candidates, claim)

    def _wait_alone(self, claim: Claim) -> None:
        said = "the store gave no answer about this token"
        log.warning("sealed token %s: %s", claim.id, said)
        patience = replace(self.patience, max_retries=None)
        with self.engine.begin() as connection:
            unreadable = {"cause": Cause.UNREADABLE.value}
            if not leases.settle(connection, sealed_candidates, claim, **unreadable):
                return
            leases.release(connection, sealed_candidates, claim, said, patience)
            told_at = claim.row["sealed_at"] + AWAY_MS
            if told_at <= now_ms(connection):
                example = f"A token found by scan {claim.row['scan_id']}: {said}."
                alarms.raise_alarm(connection, Topic.UNREADABLE, example, since=told_at)

    def _give_back(self, claim: Claim, said: str, *, blame: bool) -> None:
        log.warning("sealed token %s: %s", claim.id, said)
        patience = replace(self.patience, max_retries=None)
        with self.engine.begin() as connection:
            leases.release(connection, sealed_candidates, claim, said, patience, blame=blame)

    def _record(self, claim: Claim, waiting: Waiting, lookup: Lookup) -> None:
        asked = claim.row["asked"] + 1
        is_lagging = lookup.token is None and self.judge.store.abilities.is_replicated
        with self.engine.begin() as connection:
            doubted_ms = reopening.doubted_ms(connection, lookup)
            is_final = doubted_ms is None and not (is_lagging and asked < len(RECHECK_MS))
            if not is_final:
                if doubted_ms is None:
                    wait_ms = RECHECK_MS[asked]
                else:  # not for want of an answer
                    asked, wait_ms = asked - 1, doubted_ms
                again = now_ms(connection) + wait_ms
                values = {"asked": asked, "cause": Cause.UNCONFIRMED.value, "available_at": again}
                kept = leases.finish(
                    connection, sealed_candidates, claim, leases.PENDING, attempts=0, **values
                )
            else:
                kept = leases.finish(
                    connection, sealed_candidates, claim, leases.DONE, sealed=None, asked=asked
                )
            if not kept:
                connection.rollback()  # expired, or another worker's now
                return
            self._write(connection, claim.row, waiting, lookup)
        with correlated(claim.row["scan_id"]):
            log.info("sealed token %s: %s", claim.id, lookup.validity.value)
        if is_final:
            SEALED.add(outcome="judged")

    def _write(
        self, connection: Connection, row: Mapping[str, Any], waiting: Waiting, lookup: Lookup
    ) -> None:
        self.judge.record(
            connection,
            scan_of(connection, row),
            Judged(tuple(Finding(one, lookup, one.place.path or "") for one in waiting.places)),
        )

    def _wait(self, claims: Sequence[Claim]) -> None:
        with self.engine.begin() as connection:
            until = now_ms(connection) + _AWAY_MS
            sealed.postpone(connection, self.judge.store.name, until)
            for claim in claims:
                leases.finish(
                    connection,
                    sealed_candidates,
                    claim,
                    leases.PENDING,
                    attempts=0,
                    retries=claim.retries + 1,
                    available_at=until,
                    error="the store gave no answer",
                )
            self._tell_away(connection)

    def _tell_away(self, connection: Connection) -> None:
        store = self.judge.store.name
        since = sealed.waiting_since(connection, store)
        if since is not None and since + AWAY_MS <= now_ms(connection):
            state = "is frozen" if freezes.is_frozen(connection, store) else "gives no answer"
            example = f"The token store {store} {state}; the first of what waits for it was found "
            example += f"at {to_iso(since)}."
            alarms.raise_alarm(connection, Topic.STORE_AWAY, example, since=since + AWAY_MS)

    def _park(self, claim: Claim, said: str) -> None:
        with self.engine.begin() as connection:
            if parking.park(connection, sealed_candidates, claim, said):
                _tell_parked(connection, {**claim.row, "error": said})


def _halves(lot: Sequence[Secret]) -> list[Sequence[Secret]]:
    middle = len(lot) // 2
    return [part for part in (lot[:middle], lot[middle:]) if part]


def _tell_parked(connection: Connection, row: Mapping[str, Any]) -> None:
    with correlated(row["scan_id"]):
        log.error("sealed token %s is parked: %s", row["id"], row["error"])
    SEALED.add(outcome="parked")
    parking.tell(
        connection,
        AuditAction.RESPONSE_PARKED,
        Topic.PARKED_TOKENS,
        f"A token found by scan {row['scan_id']}",
        row,
        incident_id=row["incident_id"],
        correlation_id=row["scan_id"],
        store=row["store"],
    )
