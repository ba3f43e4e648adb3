"""Fetching and matching: at first all that a scan lacks, then what can be had instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, TypeVar

from scanner.db.clock import ServerClock
from scanner.errors import (
    FetchTooLargeError,
    FetchTooSlowError,
    InspectionTooLargeError,
    ObjectNotFoundError,
)
from scanner.metrics import SCAN_SECONDS
from scanner.model import FetchPlan, Inspection
from scanner.ports import Fetcher, Inspector, KnownBlobs, Pack
from scanner.scan.request import Request

T = TypeVar("T")

ORPHANS_GONE = "orphaned-commits-gone: 1"  # nobody can fetch them any more, we included
_ORPHANS_TOO_LARGE = "orphaned-commits-too-large: 1"
_TOO_LARGE = "history-too-large: 1"  # only the newest commits were read
_TOO_SLOW = "history-too-slow: 1"  # the same, for it would not come, or be read, in time
_SHALLOW = 50  # commits, when the whole is too much

# What less of the repository may mend.
_TOO_MUCH = (FetchTooLargeError, FetchTooSlowError, InspectionTooLargeError)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read for a scan, and when (milliseconds of the database's time)."""

    inspection: Inspection
    bytes: int  # of pack
    fetched_at: int
    matched_at: int
    is_whole: bool = True  # False: the newest commits alone


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads for the scans of one batch, on its event loop."""

    fetcher: Fetcher
    inspector: Inspector
    clock: ServerClock
    turn: ThreadPoolExecutor  # of one thread: packs wait here, where they can still be given back

    async def read(self, request: Request, known: KnownBlobs) -> Reading:
        """Fetch and match. Errors: `FetchError`, `InspectionError`, `MalformedPackError`."""
        plan = FetchPlan(request.url, request.wants, request.known)
        notes: tuple[str, ...] = ()
        try:
            if request.orphans:
                wants = (*request.wants, *request.orphans)
                try:
                    return await self._fetch(replace(plan, wants=wants), known)
                except ObjectNotFoundError:
                    notes = (ORPHANS_GONE,)
                except FetchTooLargeError:
                    notes = (_ORPHANS_TOO_LARGE,)
            return noted(await self._fetch(plan, known), *notes)
        except _TOO_MUCH as error:
            # We lack too much of this repository. What was pushed must not wait for the rest; no
            # head is claimed as scanned (law 7), the scan says what it left out (law 6).
            why = _TOO_LARGE if isinstance(error, FetchTooLargeError) else _TOO_SLOW
            if request.orphans and not notes:
                notes = (_ORPHANS_TOO_LARGE,)
            found = await self._fetch(replace(plan, depth=_SHALLOW), known)
            return replace(noted(found, *notes, why), is_whole=False)

    async def _fetch(self, plan: FetchPlan, known: KnownBlobs) -> Reading:
        wanted = tuple(want for want in plan.wants if want not in plan.haves)
        if not wanted:
            now = self.clock.now()
            return Reading(Inspection(), 0, now, now)
        began = perf_counter()
        async with self.fetcher.fetch(replace(plan, wants=wanted)) as pack:
            SCAN_SECONDS.note(perf_counter() - began, stage="fetch")
            fetched_at = self.clock.now()
            inspection = await self._inspect(pack, len(wanted[0]) // 2, known)
            return Reading(inspection, pack.size, fetched_at, self.clock.now())

    async def _inspect(self, pack: Pack, hash_size: int, known: KnownBlobs) -> Inspection:
        turn = self.turn.submit(copy_context().run, self._match, pack, hash_size, known)
        matched = asyncio.wrap_future(turn)
        try:
            return await asyncio.shield(matched)
        except asyncio.CancelledError:
            if not turn.cancel():  # the pack is being read, and must be there until it was
                await _ended(matched)
            raise

    def _match(self, pack: Pack, hash_size: int, known: KnownBlobs) -> Inspection:
        with SCAN_SECONDS.timed(stage="match"):
            return self.inspector.inspect(pack, hash_size, known)


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Call in a thread, which is waited for though we are told to stop: it reads what we hold."""
    calling = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(calling)
    except asyncio.CancelledError:
        await _ended(calling)
        raise


async def _ended(calling: asyncio.Future[T]) -> None:
    await asyncio.wait([calling])
    if not calling.cancelled():
        calling.exception()  # or asyncio complains that nobody looked


def noted(reading: Reading, *reasons: str) -> Reading:
    """The same, with what it lacks and why."""
    if not reasons:
        return reading
    inspection = reading.inspection
    partial = (*inspection.partial, *reasons)
    return replace(reading, inspection=replace(inspection, partial=partial))
