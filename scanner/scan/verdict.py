"""Writing a scan's end down: its verdict, alone or together with others; or giving it back.

A verdict is one transaction: sightings, incidents, audit events, heads, state. Most pushes hold
nothing, and their verdicts say no more than that: those of one batch share a transaction, for a
commit costs more than all the rest. What has a finding never waits for them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from sqlalchemy import Connection, Engine

from scanner import outcomes
from scanner.archives.bounds import REASONS
from scanner.correlation import correlated
from scanner.db import holding, leases, parking, scans
from scanner.db.alarms import Topic
from scanner.db.clock import now_ms
from scanner.db.engine import DATABASE_AWAY
from scanner.db.leases import Claim, Patience
from scanner.db.schema import scans as scans_table
from scanner.errors import (
    FinalError,
    InspectionError,
    LeaseLostError,
    NotServedError,
    PatrolError,
    name_of,
)
from scanner.judge import Judge, Judged
from scanner.model import AuditAction
from scanner.ports import BlobLedger
from scanner.scan.reading import ORPHANS_GONE, Reading

log = logging.getLogger(__name__)

NOTHING = Judged(())
_NOT_SERVED_RETRIES = 11  # in about an hour


@dataclass(frozen=True, slots=True)
class Verdict:
    """What there is to write down of a scan that was read and judged."""

    claim: Claim
    repository: str  # its name
    reading: Reading
    heads: tuple[str, ...]  # read whole, unless the inspection says otherwise
    began: float  # this attempt, by `perf_counter`
    judged: Judged = NOTHING

    @property
    def is_clean(self) -> bool:
        """Nothing was found, and nothing is to be told of it but the scan's end."""
        inspection = self.reading.inspection
        return not inspection.found and not inspection.bare

    @property
    def complete_heads(self) -> tuple[str, ...]:
        """The heads that a later fetch may say `have` for (law 7): nothing of theirs is left that
        reading them again would tell. What an archive withheld, it withholds again."""
        left = {reason.partition(":")[0] for reason in self.reading.inspection.partial}
        return () if left - REASONS - {ORPHANS_GONE.partition(":")[0]} else self.heads

    def values(self, proved_at: int) -> dict[str, Any]:
        """The columns of the scan's row; `proved_at`: the transaction's time, in milliseconds."""
        reading, inspection = self.reading, self.reading.inspection
        matched_at = min(reading.matched_at, proved_at)
        return {
            "fetched_at": min(reading.fetched_at, matched_at),
            "matched_at": matched_at,
            "proved_at": proved_at,
            "bytes": reading.bytes,
            "candidates": len(inspection.found),
            "objects": inspection.objects,
            "partial": list(inspection.partial),
            "state": "partial" if inspection.partial else leases.DONE,
            "sealed": None,
            "error": None,
        }


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes verdicts: files are remembered under the `ruleset` they were matched with, heads under
    the `scope` of what was looked for and who was asked."""

    engine: Engine
    judge: Judge
    ledger: BlobLedger
    patience: Patience
    ruleset: str
    scope: str

    def record(self, verdict: Verdict) -> bool:
        """Commit a verdict by itself; returns whether a leak was met. Errors: `LeaseLostError`."""
        claim = verdict.claim
        with self.engine.begin() as connection:
            proved_at = now_ms(connection)
            met = self.judge.record(connection, claim.row, verdict.judged)
            heads = [(claim.row["repository_id"], head) for head in verdict.complete_heads]
            scans.remember_heads(connection, self.scope, heads)
            self.ledger.remember(connection, self.ruleset, verdict.reading.inspection.bare)
            if not leases.finish(connection, scans_table, claim, **verdict.values(proved_at)):
                raise LeaseLostError("The scan belongs to another worker now.")
        _tell(verdict, proved_at)
        return bool(met)

    def record_clean(self, verdicts: Sequence[Verdict]) -> None:
        """Commit clean verdicts together; one whose lease was lost is left out, and is another's.

        What goes wrong with them all is tried again with each alone, so that what is to blame, if
        it is one of them, harms no other.
        """
        if not verdicts:
            return
        try:
            proved_at, kept = self._commit(verdicts)
        except Exception as error:  # noqa: BLE001 (each is tried again, and says its own error)
            log.warning("%s verdicts were not taken together: %s", len(verdicts), name_of(error))
            for verdict in verdicts:
                self._record_or_give_back(verdict)
            return
        for verdict in verdicts:
            if verdict.claim.id in kept:
                _tell(verdict, proved_at)
            else:
                self.tell_lost(verdict.claim)

    def _commit(self, verdicts: Sequence[Verdict]) -> tuple[int, set[str]]:
        with self.engine.begin() as connection:
            proved_at = now_ms(connection)
            # From here on nobody else can take them; what is another's already is not touched.
            kept = holding.hold(connection, scans_table, [one.claim for one in verdicts])
            ours = [one for one in verdicts if one.claim.id in kept]
            heads = [
                (one.claim.row["repository_id"], head)
                for one in ours
                for head in one.complete_heads
            ]
            scans.remember_heads(connection, self.scope, heads)
            holding.finish_held(
                connection,
                scans_table,
                {one.claim.id: one.values(proved_at) for one in ours},
            )
        return proved_at, kept

    def _record_or_give_back(self, verdict: Verdict) -> None:
        try:
            self.record(verdict)
        except LeaseLostError:
            self.tell_lost(verdict.claim)
        except Exception as error:  # noqa: BLE001 (a fault of ours must not take neighbours down)
            self.give_back(verdict.claim, error)

    def tell_lost(self, claim: Claim) -> None:
        """Another worker took over while we were paused: its verdict counts."""
        with correlated(claim.id):
            log.warning("scan %s: the lease was lost, its result is discarded", claim.id)
        outcomes.count(claim.row, "lost")

    def hand_back(self, claim: Claim) -> None:
        """Leave a scan to others as it was: we are told to stop, and nobody is to blame."""
        with self.engine.begin() as connection:
            leases.hand_back(connection, scans_table, claim)
        outcomes.count(claim.row, "handed_back")

    def give_back(self, claim: Claim, error: Exception) -> None:
        """Put a scan off for another try, or park it, for what `error` says."""
        final = isinstance(error, FinalError) and not _may_pass(claim, error)
        said = str(error) if isinstance(error, PatrolError) else name_of(error)
        with correlated(claim.id):
            log.warning("scan %s: %s (%s)", claim.id, said, "final" if final else "will retry")
        # What ended the parsing child, or surprised us, may be the input's doing.
        blame = isinstance(error, InspectionError) or not isinstance(
            error, (PatrolError, OSError, *DATABASE_AWAY)
        )
        with self.engine.begin() as connection:
            if final:
                kept = parking.park(connection, scans_table, claim, said)
                state = leases.PARKED if kept else None
            else:
                state = leases.release(
                    connection, scans_table, claim, said, self.patience, blame=blame
                )
            if state == leases.PARKED:
                end_parked(connection, {**claim.row, "error": said})
        if state != leases.PARKED:
            outcomes.count(claim.row, "lost" if state is None else "retried")


def _may_pass(claim: Claim, error: Exception) -> bool:
    """True soon after a push whose repository or commit is not there: it may be soon."""
    return isinstance(error, NotServedError) and claim.retries < _NOT_SERVED_RETRIES


def end_parked(connection: Connection, row: Mapping[str, Any]) -> None:
    """A scan waits for a person, as of this transaction: the trail and the operator are told."""
    outcomes.tell_parked(row)
    parking.tell(
        connection,
        AuditAction.SCAN_PARKED,
        Topic.PARKED_SCANS,
        f"Scan {row['id']}",
        row,
        correlation_id=row["id"],
    )


def _tell(verdict: Verdict, proved_at: int) -> None:
    with correlated(verdict.claim.id):
        outcomes.tell_done(
            verdict.claim.row,
            verdict.repository,
            verdict.reading.inspection,
            verdict.judged,
            proved_at=proved_at,
            worked=perf_counter() - verdict.began,
        )
