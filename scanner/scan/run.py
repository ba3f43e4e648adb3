"""A batch of claimed scans, each to its end: fetch, match, prove, record.

Fetch, match and prove are one unit of work (law 1): raw tokens live in this room's variables and
nowhere else. Where the store cannot answer, the tokens it should answer for are sealed in the
verdict's transaction: the repository may be gone when it can (recheck.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

from sqlalchemy import Engine

from scanner.correlation import correlated
from scanner.db import scans
from scanner.db.clock import ServerClock
from scanner.db.engine import DATABASE_AWAY, reader
from scanner.db.lanes import Lane
from scanner.db.leases import Claim, Patience
from scanner.db.scans import KnownRepository
from scanner.db.schema import scans as scans_table
from scanner.db.seals import Sealer
from scanner.db.work import Found, taken
from scanner.deadline import Deadline
from scanner.errors import FinalError, LeaseLostError, LedgerFalseError, OutOfTimeError
from scanner.judge import Judge
from scanner.matcher.engine import Matcher
from scanner.metrics import SCAN_SECONDS
from scanner.ports import BlobLedger, Fetcher, Inspector
from scanner.recall import SAMPLE, Recall
from scanner.scan.reading import Reader, in_thread, noted
from scanner.scan.request import make_request, spoken
from scanner.scan.verdict import Recorder, Verdict, end_parked

log = logging.getLogger(__name__)

_BATCH = 64
_LOOK_SECONDS = 0.2
_NAMES_GONE = "sealed-names-gone: 1"


@dataclass(frozen=True, slots=True)
class Scanner:
    """The services a scan needs; built by bootstrap."""

    engine: Engine
    fetcher: Fetcher
    inspector: Inspector
    matcher: Matcher
    judge: Judge
    sealer: Sealer
    patience: Patience
    ledger: BlobLedger
    sample: int = SAMPLE  # of so many files that the ledger knows, one is matched again

    def run_batch(
        self,
        deadline: Deadline | None = None,
        *,
        lane: Lane = Lane.HISTORY,
        on_leak: Callable[[], None] | None = None,
    ) -> Found:
        """Claim up to 64 scans of `lane` or more urgent ones and finish them; false: there was
        nothing to do. What is not done at the deadline is given back. `on_leak` is called after
        each verdict that somebody should respond to, while others of the batch may take minutes.
        """
        with taken(
            self.engine,
            scans_table,
            self.patience,
            limit=_BATCH,
            on_parked=end_parked,
            lanes=range(lane + 1),
        ) as work:
            if work.claims:
                asyncio.run(self._run(work.claims, deadline or Deadline(), on_leak))
        return work.found

    @property
    def scope(self) -> str:
        """What heads are remembered under: what was looked for, and who was asked. Another store
        may know tokens that this one does not."""
        parts = f"{self.matcher.digest}\0{self.judge.store.name}"
        return hashlib.sha256(parts.encode()).hexdigest()

    async def _run(
        self, claims: Sequence[Claim], deadline: Deadline, on_leak: Callable[[], None] | None
    ) -> None:
        scope = self.scope
        recorder = Recorder(
            self.engine, self.judge, self.ledger, self.patience, self.matcher.digest, scope
        )
        try:
            with reader(self.engine).connect() as connection:
                clock = ServerClock(connection)
                wanted = {claim.row["repository_id"] for claim in claims}
                known = scans.known_repositories(connection, wanted, scope)
        except DATABASE_AWAY as error:  # for a moment, perhaps: nobody is to blame
            for claim in claims:
                recorder.give_back(claim, error)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="inspect") as turn:
            reading = Reader(self.fetcher, self.inspector, clock, turn)
            await _Batch(self, reading, recorder, known, on_leak).run(claims, deadline)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Scans that were claimed together and share an event loop."""

    services: Scanner
    reader: Reader
    recorder: Recorder
    known: dict[str, KnownRepository]
    on_leak: Callable[[], None] | None
    clean: list[Verdict] = field(default_factory=list)  # that wait for a common commit
    failures: list[Exception] = field(default_factory=list)

    async def run(self, claims: Sequence[Claim], deadline: Deadline) -> None:
        """Each scan to its end, whatever happens to its neighbours."""
        running = {asyncio.create_task(self._run_one(claim)): claim for claim in claims}
        waiting = set(running)
        while waiting and not deadline.is_over:
            # A signal's handler may cut the deadline while we wait: it is looked at again.
            pause = min(deadline.left, _LOOK_SECONDS)
            _, waiting = await asyncio.wait(waiting, timeout=pause)
            self._record_clean()
        for task in waiting:
            task.cancel()
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        self._record_clean()  # what came to its end meanwhile
        for (task, claim), outcome in zip(running.items(), outcomes, strict=True):
            if task.cancelled():
                self._stop(claim, deadline)
            elif isinstance(outcome, BaseException):
                raise outcome
        if self.failures:
            raise self.failures[0]

    def _record_clean(self) -> None:
        verdicts = self.clean.copy()
        self.clean.clear()
        try:
            self.recorder.record_clean(verdicts)
        except Exception as error:  # noqa: BLE001 (raised when the others have had their turn)
            self.failures.append(error)

    def _stop(self, claim: Claim, deadline: Deadline) -> None:
        if deadline.was_cut:
            self.recorder.hand_back(claim)
        else:
            error = OutOfTimeError("The time that a batch of scans may take was over.")
            self.recorder.give_back(claim, error)

    async def _run_one(self, claim: Claim) -> None:
        with correlated(claim.id):  # each scan of a batch is a task, with a context of its own
            try:
                await self._scan(claim)
            except LeaseLostError:
                self.recorder.tell_lost(claim)
            except Exception as error:  # noqa: BLE001 (a fault of ours must not take neighbours down)
                self.recorder.give_back(claim, error)

    async def _scan(self, claim: Claim) -> None:
        read = await self._read(claim)
        if read.is_clean:
            self.clean.append(read)
            return
        services = self.services
        # In a thread: a store may take its time, and this loop has other scans.
        with SCAN_SECONDS.timed(stage="prove"):
            judged = await in_thread(services.judge.judge, read.reading.inspection.found)
        is_leak = self.recorder.record(replace(read, judged=judged))
        if is_leak and self.on_leak is not None:
            self.on_leak()
        if bare := read.reading.inspection.bare:
            with suppress(asyncio.CancelledError):  # the scan itself is done
                await in_thread(services.ledger.publish, services.matcher.digest, bare)

    def _names(self, row: Mapping[str, Any]) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """The names that were sealed, and what is lacking: their key may be gone after its time,
        and what was pushed is read all the same."""
        if not row["sealed"]:
            return {}, ()
        try:
            return self.services.sealer.open(row["body_digest"], row["sealed"]), ()
        except FinalError as error:
            log.warning("scan %s: a name that held a token is gone: %s", row["id"], error)
            return {}, (_NAMES_GONE,)

    async def _read(self, claim: Claim) -> Verdict:
        """Fetch and match; what is returned was not judged yet."""
        row, began, services = claim.row, perf_counter(), self.services
        repository, matcher = self.known[row["repository_id"]], services.matcher
        raw, lacks = self._names(row)
        url = f"{repository.host}/{raw.get('repository', repository.name)}.git"
        request = await make_request(services.fetcher, row, raw, url, repository.heads)
        recall = Recall(services.ledger, matcher.digest, sample=services.sample)
        reading = await self.reader.read(request, recall.known)
        if false := recall.contradiction(reading.inspection.bare):
            await in_thread(services.ledger.distrust, false)
            raise LedgerFalseError(
                "The blob ledger was false: it is empty now, and this begins anew."
            )
        if found := tuple(spoken(matcher, request.names)):
            inspection = reading.inspection
            inspection = replace(inspection, found=(*inspection.found, *found))
            reading = replace(reading, inspection=inspection)
        reading = noted(reading, *lacks)
        heads = request.heads if reading.is_whole else ()
        return Verdict(claim, repository.name, reading, heads, began)
