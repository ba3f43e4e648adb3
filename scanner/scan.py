"""The first use case: a claimed scan becomes verified leaks.

Fetch, match and prove are one unit of work (law 1): raw tokens live in this module's variables and
nowhere else. The verdict is one transaction: sightings, incidents, audit events, heads, state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from scanner.db import audit, freezes, incidents, leases, outbox, scans
from scanner.db.clock import now_ms, to_iso
from scanner.db.engine import reader
from scanner.db.leases import Claim
from scanner.db.schema import scans as scans_table
from scanner.db.seals import Sealer
from scanner.errors import FinalError, ObjectNotFoundError, PatrolError, StoreUntrustedError
from scanner.matcher.engine import Matcher
from scanner.model import (
    AuditAction,
    FetchPlan,
    Inspection,
    LocatedCandidate,
    Lookup,
    ObjectKind,
    Place,
    Validity,
)
from scanner.ports import Fetcher, Inspector, TokenStore
from scanner.prove import prove
from scanner.settings import Key

log = logging.getLogger(__name__)

ZERO = "0"
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Scanner:
    """The services a scan needs; built by bootstrap."""

    engine: Engine
    fetcher: Fetcher
    inspector: Inspector
    matcher: Matcher
    store: TokenStore
    bound: frozenset[str]  # patterns whose candidates the store may see (threat 1)
    fingerprint_key: Key
    sealer: Sealer
    operator_email: str
    lease_ms: int
    max_attempts: int

    def run_batch(self) -> int:
        """Claim up to 64 scans and finish them; returns how many were claimed."""
        with self.engine.begin() as connection:
            claims, parked = leases.claim(
                connection,
                scans_table,
                limit=_BATCH,
                lease_ms=self.lease_ms,
                max_attempts=self.max_attempts,
            )
            for row in parked:
                audit.record(
                    connection,
                    AuditAction.SCAN_PARKED,
                    correlation_id=row["id"],
                    error=row["error"],
                )
        if claims:
            asyncio.run(self._run_all(claims))
        return len(claims) + len(parked)

    async def _run_all(self, claims: Sequence[Claim]) -> None:
        await asyncio.gather(*(self._run_one(claim) for claim in claims))

    async def _run_one(self, claim: Claim) -> None:
        try:
            await self._scan(claim)
        except StoreUntrustedError as error:
            self._freeze(claim, str(error))
        except PatrolError as error:
            self._give_back(claim, error)

    async def _scan(self, claim: Claim) -> None:
        row = claim.row
        with reader(self.engine).connect() as connection:
            repository = scans.repository_of(connection, row["repository_id"])
            known = scans.complete_heads(connection, row["repository_id"], self.matcher.digest)
        raw = self.sealer.open(row["body_digest"], row["sealed"]) if row["sealed"] else {}
        url = f"{repository['host']}/{raw.get('repository', repository['name'])}.git"
        request = await self._request(row, url, known)
        inspection, missing = await self._inspect(claim, request)
        inspection = self._with_free_text(inspection, raw, row)
        with self.engine.begin() as connection:
            leases.settle(
                connection,
                scans_table,
                claim,
                matched_at=now_ms(connection),
                candidates=len(inspection.found),
            )
        lookups = self._prove(inspection)
        partial = (*missing, *inspection.partial)
        self._record(claim, inspection, lookups, request.heads, partial)

    async def _request(self, row: Mapping[str, Any], url: str, known: Sequence[str]) -> _Request:
        if row["source"] == "watch":
            refs = await self.fetcher.list_refs(url)
            heads = tuple(sorted(set(refs.values())))
            return _Request(url, heads, heads, (), tuple(known))
        after, before = row["after"], row["before"]
        heads = () if _is_zero(after) else (after,)
        # A forced push or a deleted branch orphans commits that stay public by their hash.
        orphaned = row["forced"] or _is_zero(after)
        extra = (before,) if orphaned and not _is_zero(before) and before not in known else ()
        return _Request(url, heads, heads, extra, tuple(known))

    async def _inspect(self, claim: Claim, request: _Request) -> tuple[Inspection, tuple[str, ...]]:
        missing: tuple[str, ...] = ()
        wanted = tuple(w for w in (*request.wants, *request.extra) if w not in request.known)
        if not wanted:
            self._fetched(claim, 0, 0)
            return Inspection(), missing
        try:
            return await self._fetch(claim, FetchPlan(request.url, wanted, request.known)), missing
        except ObjectNotFoundError:
            if not request.extra:
                raise
            missing = ("orphaned commits are no longer served",)
        wanted = tuple(w for w in request.wants if w not in request.known)
        if not wanted:
            self._fetched(claim, 0, 0)
            return Inspection(), missing
        return await self._fetch(claim, FetchPlan(request.url, wanted, request.known)), missing

    async def _fetch(self, claim: Claim, plan: FetchPlan) -> Inspection:
        async with self.fetcher.fetch(plan) as pack:
            self._fetched(claim, pack.size, None)
            hash_size = len(plan.wants[0]) // 2
            return await asyncio.to_thread(self.inspector.inspect, pack, hash_size)

    def _fetched(self, claim: Claim, size: int, objects: int | None) -> None:
        with self.engine.begin() as connection:
            leases.settle(
                connection,
                scans_table,
                claim,
                fetched_at=now_ms(connection),
                bytes=size,
                objects=objects,
            )

    def _with_free_text(
        self, inspection: Inspection, raw: Mapping[str, str], row: Mapping[str, Any]
    ) -> Inspection:
        """Tokens in the push's own words (a branch name) leak as much as those in files."""
        spoken = [
            LocatedCandidate(
                candidate,
                Place(object_id=row["after"] or "", kind=ObjectKind.TAG, commit=None),
            )
            for text in raw.values()
            for candidate in self.matcher.scan(text.encode())
        ]
        if not spoken:
            return inspection
        return Inspection(
            found=(*inspection.found, *spoken),
            objects=inspection.objects,
            blobs=inspection.blobs,
            bytes=inspection.bytes,
            scanned_bytes=inspection.scanned_bytes,
            partial=inspection.partial,
        )

    def _prove(self, inspection: Inspection) -> list[Lookup]:
        distinct = list(
            dict.fromkeys(
                found.candidate.secret
                for found in inspection.found
                if found.candidate.pattern in self.bound
            )
        )
        answers = dict(zip(distinct, prove(self.store, distinct), strict=True))
        unchecked = Lookup(Validity.UNCHECKED)
        return [
            answers.get(found.candidate.secret, unchecked)
            if found.candidate.pattern in self.bound
            else unchecked
            for found in inspection.found
        ]

    def _record(
        self,
        claim: Claim,
        inspection: Inspection,
        lookups: Sequence[Lookup],
        heads: Sequence[str],
        partial: tuple[str, ...],
    ) -> None:
        with self.engine.begin() as connection:
            for found, lookup in zip(inspection.found, lookups, strict=True):
                self._record_one(connection, claim, found, lookup)
            if not inspection.partial:
                scans.remember_heads(
                    connection, claim.row["repository_id"], self.matcher.digest, heads
                )
            kept = leases.finish(
                connection,
                scans_table,
                claim,
                "partial" if partial else leases.DONE,
                proved_at=now_ms(connection),
                objects=inspection.objects,
                partial=list(partial),
                sealed=None,
                error=None,
            )
            if not kept:  # another worker took over while we were paused: its verdict counts
                connection.rollback()
                log.warning("scan %s: the lease was lost, its result is discarded", claim.id)

    def _record_one(
        self, connection: Any, claim: Claim, found: LocatedCandidate, lookup: Lookup
    ) -> None:
        incident_id, is_new = None, False
        if lookup.token is not None:
            incident_id, is_new = incidents.open_incident(connection, lookup, claim.id)
        path = self.matcher.redact(found.place.path or "")
        added = incidents.add_sighting(
            connection,
            incident_id=incident_id,
            scan=claim.row,
            found=found,
            lookup=lookup,
            path=path.encode("utf-8", "backslashreplace").decode()[:1000],
            key=self.fingerprint_key,
        )
        if added and incident_id is not None and not is_new and lookup.token is not None:
            audit.record(
                connection,
                AuditAction.LEAK_SEEN_AGAIN,
                organisation_id=lookup.token.organisation_id,
                incident_id=incident_id,
                token_id=lookup.token.token_id,
                correlation_id=claim.id,
            )

    def _give_back(self, claim: Claim, error: PatrolError) -> None:
        final = isinstance(error, FinalError)
        log.warning("scan %s: %s (%s)", claim.id, error, "final" if final else "will retry")
        with self.engine.begin() as connection:
            if not final:
                leases.release(connection, scans_table, claim, str(error))
            elif leases.finish(
                connection, scans_table, claim, leases.PARKED, error=str(error)[:500]
            ):
                audit.record(
                    connection, AuditAction.SCAN_PARKED, correlation_id=claim.id, error=str(error)
                )

    def _freeze(self, claim: Claim, reason: str) -> None:
        log.error("store %s is frozen: %s", self.store.name, reason)
        with self.engine.begin() as connection:
            if freezes.freeze(connection, self.store.name, reason):
                at = to_iso(now_ms(connection))
                outbox.enqueue(
                    connection,
                    kind="alarm",
                    dedupe=f"freeze:{self.store.name}:{at}",
                    notice={
                        "kind": "alarm",
                        "to": self.operator_email,
                        "reply_to": None,
                        "context": {
                            "title": f"Revocation is frozen for the store {self.store.name}",
                            "explanation": reason,
                            "what_to_do": "Repair the store, then run: patrol policy set "
                            f"--release-store {self.store.name}",
                            "at": at,
                        },
                    },
                )
            leases.release(connection, scans_table, claim, reason)


@dataclass(frozen=True, slots=True)
class _Request:
    """What a scan asks of a repository: `heads` are remembered if everything was read."""

    url: str
    heads: tuple[str, ...]
    wants: tuple[str, ...]
    extra: tuple[str, ...]
    known: tuple[str, ...]


def _is_zero(object_id: str | None) -> bool:
    return not object_id or not object_id.strip(ZERO)
