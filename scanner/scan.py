"""The first use case: a claimed scan becomes verified leaks.

Fetch, match and prove are one unit of work (law 1): raw tokens live in this module's variables and
nowhere else. The verdict is one transaction: sightings, incidents, audit events, heads, state.
Where the store cannot answer, the tokens it should answer for are sealed in that transaction: the
repository may be gone when it can (recheck.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from scanner import outcomes
from scanner.correlation import correlated
from scanner.db import alarms, audit, leases, scans
from scanner.db.alarms import Topic
from scanner.db.clock import now_ms
from scanner.db.engine import DATABASE_AWAY, reader
from scanner.db.lanes import Lane
from scanner.db.leases import Claim, Patience
from scanner.db.schema import scans as scans_table
from scanner.db.seals import Sealer
from scanner.db.work import taken
from scanner.deadline import Deadline
from scanner.errors import (
    FetchTooLargeError,
    FinalError,
    InspectionError,
    LeaseLostError,
    LedgerFalseError,
    ObjectNotFoundError,
    OutOfTimeError,
    PatrolError,
    name_of,
)
from scanner.judge import Judge, Judged
from scanner.matcher.engine import Matcher
from scanner.metrics import SCAN_SECONDS
from scanner.model import (
    AuditAction,
    FetchPlan,
    Inspection,
    LocatedCandidate,
    ObjectKind,
    Place,
)
from scanner.ports import BlobLedger, Fetcher, Inspector, Pack
from scanner.recall import SAMPLE, Recall

log = logging.getLogger(__name__)

T = TypeVar("T")
_Inspect = Callable[[Pack, int], Awaitable[Inspection]]

_BATCH = 64
_LOOK_SECONDS = 0.2
_ORPHANS_GONE = "orphaned-commits-gone: 1"  # nobody can fetch them any more, we included
_ORPHANS_TOO_LARGE = "orphaned-commits-too-large: 1"
_TOO_LARGE = "history-too-large: 1"  # only the newest commits were read
_SHALLOW = 50  # commits, when the whole is too large


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
    ) -> bool:
        """Claim up to 64 scans of `lane` or more urgent ones and finish them; False: there was
        nothing to do. What is not done at the deadline is given back. `on_leak` is called after
        each verdict that somebody should respond to, while others of the batch may take minutes.
        """
        with taken(
            self.engine,
            scans_table,
            self.patience,
            limit=_BATCH,
            on_parked=_end_parked,
            lanes=range(lane + 1),
        ) as work:
            if work.claims:
                asyncio.run(self._run_all(work.claims, deadline or Deadline(), on_leak))
        return work.found

    async def _run_all(
        self, claims: Sequence[Claim], deadline: Deadline, on_leak: Callable[[], None] | None
    ) -> None:
        # Each scan to its end, whatever happens to its neighbours.
        inspecting = asyncio.Lock()  # packs wait here, where they can still be given back
        running = {
            asyncio.create_task(self._run_one(claim, inspecting, on_leak)): claim
            for claim in claims
        }
        waiting = set(running)
        while waiting and not deadline.is_over:
            # A signal's handler may cut the deadline while we wait: it is looked at again.
            pause = min(deadline.left, _LOOK_SECONDS)
            _, waiting = await asyncio.wait(waiting, timeout=pause)
        for task in waiting:
            task.cancel()
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        for (task, claim), outcome in zip(running.items(), outcomes, strict=True):
            if task.cancelled():
                self._stop(claim, deadline)
            elif isinstance(outcome, BaseException):
                raise outcome

    def _stop(self, claim: Claim, deadline: Deadline) -> None:
        if not deadline.was_cut:
            error = OutOfTimeError("The time that a batch of scans may take was over.")
            self._give_back(claim, str(error), error)
            return
        with self.engine.begin() as connection:
            leases.hand_back(connection, scans_table, claim)
        outcomes.count(claim.row, "handed_back")

    async def _run_one(
        self, claim: Claim, inspecting: asyncio.Lock, on_leak: Callable[[], None] | None
    ) -> None:
        with correlated(claim.id):  # each scan of a batch is a task, with a context of its own
            await self._try(claim, inspecting, on_leak)

    async def _try(
        self, claim: Claim, inspecting: asyncio.Lock, on_leak: Callable[[], None] | None
    ) -> None:
        try:
            is_leak, bare = await self._scan(claim, inspecting)
            if is_leak and on_leak is not None:
                on_leak()
            if bare:
                with suppress(asyncio.CancelledError):  # the scan itself is done
                    await _in_thread(self.ledger.publish, self.matcher.digest, bare)
        except LeaseLostError:
            # Another worker took over while we were paused: its verdict counts.
            log.warning("scan %s: the lease was lost, its result is discarded", claim.id)
            outcomes.count(claim.row, "lost")
        except PatrolError as error:
            self._give_back(claim, str(error), error)
        except Exception as error:  # noqa: BLE001 (a fault of ours must not take neighbours down)
            self._give_back(claim, name_of(error), error)

    async def _scan(self, claim: Claim, inspecting: asyncio.Lock) -> tuple[bool, Sequence[str]]:
        """Returns whether a leak was met, and the files that the ledger remembers of it."""
        row, began = claim.row, perf_counter()
        with reader(self.engine).connect() as connection:
            repository = scans.repository_of(connection, row["repository_id"])
            known = scans.complete_heads(connection, row["repository_id"], self.matcher.digest)
        raw = self.sealer.open(row["body_digest"], row["sealed"]) if row["sealed"] else {}
        url = f"{repository['host']}/{raw.get('repository', repository['name'])}.git"
        request = await self._request(row, raw, url, known)
        recall = Recall(self.ledger, self.matcher.digest, sample=self.sample)
        reading = await self._read(claim, request, partial(self._inspect, inspecting, recall))
        if false := recall.contradiction(reading.inspection.bare):
            await _in_thread(self.ledger.distrust, false)
            raise LedgerFalseError(
                "The blob ledger was false: it is empty now, and this begins anew."
            )
        spoken = tuple(self._spoken(request.names))
        inspection = replace(reading.inspection, found=(*reading.inspection.found, *spoken))
        self._settle(claim, "matched_at", candidates=len(inspection.found))
        # In a thread: a store may take its time, and this loop has other scans.
        with SCAN_SECONDS.timed(stage="prove"):
            judged = await _in_thread(self.judge.judge, inspection.found)
        heads = request.heads if reading.is_whole else ()
        proved_at, met = self._record(claim, inspection, judged, heads)
        name, worked = str(repository["name"]), perf_counter() - began
        outcomes.tell_done(row, name, inspection, judged, proved_at=proved_at, worked=worked)
        return met, inspection.bare

    async def _request(
        self, row: Mapping[str, Any], raw: Mapping[str, str], url: str, known: Sequence[str]
    ) -> _Request:
        if row["source"] == "watch":
            refs = await self.fetcher.list_refs(url)
            heads = tuple(sorted(set(refs.values())))
            names = tuple((object_id, name) for name, object_id in refs.items())
            return _Request(url, heads, heads, tuple(known), names=names)
        after, before = row["after"], row["before"]
        heads = () if _is_zero(after) else (after,)
        # A forced push or a deleted branch orphans commits that stay public by their hash.
        orphaned = row["forced"] or _is_zero(after)
        return _Request(
            url,
            heads,
            heads,
            tuple(known),
            orphans=(before,) if orphaned and not _is_zero(before) and before not in known else (),
            names=tuple((after, text) for text in raw.values()),
        )

    async def _read(self, claim: Claim, request: _Request, inspect: _Inspect) -> _Reading:
        """Fetch and match: at first all we lack, then what can be had instead."""
        plan = FetchPlan(request.url, request.wants, request.known)
        notes: tuple[str, ...] = ()
        if request.orphans:
            wants = (*request.wants, *request.orphans)
            try:
                return _Reading(await self._fetch(claim, replace(plan, wants=wants), inspect))
            except ObjectNotFoundError:
                notes = (_ORPHANS_GONE,)
            except FetchTooLargeError:
                notes = (_ORPHANS_TOO_LARGE,)
        try:
            return _Reading(_noted(await self._fetch(claim, plan, inspect), *notes))
        except FetchTooLargeError:
            # We lack too much of this repository. What was pushed must not wait for the rest; no
            # head is claimed as scanned (law 7), the scan says what it left out (law 6).
            found = await self._fetch(claim, replace(plan, depth=_SHALLOW), inspect)
            return _Reading(_noted(found, *notes, _TOO_LARGE), is_whole=False)

    async def _fetch(self, claim: Claim, plan: FetchPlan, inspect: _Inspect) -> Inspection:
        wanted = tuple(want for want in plan.wants if want not in plan.haves)
        if not wanted:
            self._settle(claim, "fetched_at", bytes=0)
            return Inspection()
        began = perf_counter()
        async with self.fetcher.fetch(replace(plan, wants=wanted)) as pack:
            SCAN_SECONDS.note(perf_counter() - began, stage="fetch")
            self._settle(claim, "fetched_at", bytes=pack.size)
            hash_size = len(wanted[0]) // 2
            return await inspect(pack, hash_size)

    async def _inspect(
        self, inspecting: asyncio.Lock, recall: Recall, pack: Pack, hash_size: int
    ) -> Inspection:
        async with inspecting:
            with SCAN_SECONDS.timed(stage="match"):
                return await _in_thread(self.inspector.inspect, pack, hash_size, recall.known)

    def _settle(self, claim: Claim, moment: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            values[moment] = now_ms(connection)
            if not leases.settle(connection, scans_table, claim, **values):
                raise LeaseLostError("The scan belongs to another worker now.")

    def _spoken(self, names: Sequence[tuple[str, str]]) -> Iterator[LocatedCandidate]:
        """Tokens in names (of a branch, of the repository) leak as much as those in files."""
        if not self.matcher.scan("\n".join(name for _, name in names).encode(*_ANY_BYTES)):
            return
        for object_id, name in names:
            for candidate in self.matcher.scan(name.encode(*_ANY_BYTES)):
                yield LocatedCandidate(candidate, Place(object_id, ObjectKind.REF, name))

    def _record(
        self,
        claim: Claim,
        inspection: Inspection,
        judged: Judged,
        heads: Sequence[str],
    ) -> tuple[int, bool]:
        """Commit the verdict; returns its time by the database, and whether a leak was met."""
        with self.engine.begin() as connection:
            proved_at = now_ms(connection)
            met = self.judge.record(connection, claim.row, judged)
            if not set(inspection.partial) - {_ORPHANS_GONE}:
                scans.remember_heads(
                    connection, claim.row["repository_id"], self.matcher.digest, heads
                )
            self.ledger.remember(connection, self.matcher.digest, inspection.bare)
            if not leases.finish(
                connection,
                scans_table,
                claim,
                "partial" if inspection.partial else leases.DONE,
                proved_at=proved_at,
                objects=inspection.objects,
                partial=list(inspection.partial),
                sealed=None,
                error=None,
            ):
                raise LeaseLostError("The scan belongs to another worker now.")
        return proved_at, bool(met)

    def _give_back(self, claim: Claim, said: str, error: Exception) -> None:
        final = isinstance(error, FinalError)
        log.warning("scan %s: %s (%s)", claim.id, said, "final" if final else "will retry")
        # What ended the parsing child, or surprised us, may be the input's doing.
        blame = isinstance(error, InspectionError) or not isinstance(
            error, (PatrolError, OSError, *DATABASE_AWAY)
        )
        with self.engine.begin() as connection:
            if final:
                kept = leases.finish(
                    connection, scans_table, claim, leases.PARKED, error=said[:500]
                )
                state = leases.PARKED if kept else None
            else:
                state = leases.release(
                    connection, scans_table, claim, said, self.patience, blame=blame
                )
            if state == leases.PARKED:
                _end_parked(connection, {**claim.row, "error": said})
        if state != leases.PARKED:
            outcomes.count(claim.row, "lost" if state is None else "retried")


async def _in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Call in a thread, which is waited for though we are told to stop: it reads what we hold."""
    calling = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(calling)
    except asyncio.CancelledError:
        await asyncio.wait([calling])
        if not calling.cancelled():
            calling.exception()  # or asyncio complains that nobody looked
        raise


_ANY_BYTES = ("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class _Request:
    """What a scan asks of a repository; `heads` are remembered if everything was read."""

    url: str
    heads: tuple[str, ...]
    wants: tuple[str, ...]
    known: tuple[str, ...]  # heads that were scanned completely: all we may say `have` for
    orphans: tuple[str, ...] = ()  # wanted too, but may be gone
    names: tuple[tuple[str, str], ...] = ()  # (object id, name that may hold a token)


@dataclass(frozen=True, slots=True)
class _Reading:
    inspection: Inspection
    is_whole: bool = True


def _noted(inspection: Inspection, *reasons: str) -> Inspection:
    return replace(inspection, partial=(*inspection.partial, *reasons))


def _is_zero(object_id: str | None) -> bool:
    return not object_id or not object_id.strip("0")


def _end_parked(connection: Connection, row: Mapping[str, Any]) -> None:
    outcomes.tell_parked(row)
    alarms.raise_alarm(connection, Topic.PARKED_SCANS, f"Scan {row['id']}: {row['error']}")
    audit.record(connection, AuditAction.SCAN_PARKED, correlation_id=row["id"], error=row["error"])
