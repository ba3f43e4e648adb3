"""From candidates to verdicts: ask the store, write down what it said, seal what must wait.

Scans and the second asking (recheck.py) share it. Nothing here ends with the store's mood: where it
is away, frozen or lying, the tokens it should have answered for wait, sealed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine

from scanner.db import chains, freezes, incidents, late, sealed, verdicts
from scanner.db.engine import reader
from scanner.db.sealed import Cause, Waiting
from scanner.db.seals import Sealer
from scanner.db.verdicts import Finding, Met
from scanner.errors import StoreUnavailableError, StoreUntrustedError
from scanner.fingerprint import fingerprint
from scanner.keyring import Key
from scanner.model import LocatedCandidate, Lookup, Secret, TokenRecord, Validity
from scanner.ports import MeetsLatecomers, TokenStore
from scanner.prove import never_issued, prove

log = logging.getLogger(__name__)

# A token may be leaked before its store has heard of it: replication, late import. Pauses before
# each further question, a minute to a day after the first.
RECHECK_MS = tuple(60_000 * minutes for minutes in (1, 4, 25, 90, 360, 960))


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts of a set of candidates, and the tokens that must wait for one."""

    findings: tuple[Finding, ...]
    waiting: tuple[Waiting, ...] = ()  # no answer yet
    unconfirmed: tuple[Waiting, ...] = ()  # unknown so far


@dataclass(frozen=True, slots=True)
class Judge:
    """Asks the store and records its verdicts; built by bootstrap. Safe to share."""

    engine: Engine
    store: TokenStore
    bound: frozenset[str]  # patterns whose candidates the store may see (threat 1)
    keys: Sequence[Key]  # of fingerprints, newest first
    sealer: Sealer
    keep_ms: int  # how long a sealed token waits at most
    redact: Callable[[str], str]

    def ask(self, secrets: Sequence[Secret]) -> dict[Secret, Lookup] | None:
        """Prove each token, or say None: the store gives no answer that may be acted on. It may
        give none for some of them (`STORE_UNAVAILABLE`): these wait, the others do not."""
        asked = list(dict.fromkeys(secrets))
        if not asked:
            return {}
        with reader(self.engine).connect() as connection:
            if freezes.is_frozen(connection, self.store.name):
                return None
        try:
            return dict(zip(asked, prove(self.store, asked), strict=True))
        except StoreUnavailableError as error:
            log.warning("store %s: %s", self.store.name, error)
        except StoreUntrustedError as error:
            log.error("store %s is frozen: %s", self.store.name, error)  # noqa: TRY400 (expected)
            with self.engine.begin() as connection:
                freezes.freeze(connection, self.store.name, str(error))
        return None

    def is_answered(self) -> bool:
        """True when the store answers for tokens that nobody issued: then it is not away, whatever
        it said of others."""
        return self.ask([never_issued()]) is not None

    def judge(self, found: Sequence[LocatedCandidate]) -> Judged:
        """Answer for every candidate. Places are masked here: nothing behind this is raw."""
        shown = [self._masked(one) for one in found]
        answers = self.ask([one.candidate.secret for one in shown if self._is_bound(one)])
        findings, unconfirmed, waiting = [], [], []
        for one in shown:
            if not self._is_bound(one):
                findings.append(_finding(one, Lookup(Validity.UNCHECKED)))
            elif answers is None or _is_silent(lookup := answers[one.candidate.secret]):
                waiting.append(one)
            else:
                findings.append(_finding(one, lookup))
                if lookup.token is None and self.store.abilities.is_replicated:
                    unconfirmed.append(one)
        return Judged(tuple(findings), _by_secret(waiting), _by_secret(unconfirmed))

    def record(
        self, connection: Connection, scan: Mapping[str, Any], judged: Judged
    ) -> dict[str, Met]:
        """Write the verdicts of `scan` (its row), in the caller's transaction, and seal what waits;
        returns the tokens of the incidents met, by incident."""
        judged = self._ask_again(connection, judged)
        met = verdicts.record_findings(connection, scan, judged.findings, self.keys)
        late.remember(connection, self._digests(judged.findings))
        if self.store.abilities.revokes_by == "secret":
            self._keep_for_revocation(connection, scan["id"], judged.findings, met)
        for waiting, cause, first_ms in (
            (judged.waiting, Cause.STORE_UNAVAILABLE, 0),
            (judged.unconfirmed, Cause.UNCONFIRMED, RECHECK_MS[0]),
        ):
            self._hold(connection, scan["id"], waiting, cause=cause, first_ms=first_ms)
        for one in met.values():
            if one.doubted_ms is not None:
                said = [f.found for f in judged.findings if _is_of(f, one.token)]
                self._hold(
                    connection, scan["id"], _by_secret(said),
                    cause=Cause.UNCONFIRMED, first_ms=one.doubted_ms,
                )  # fmt: skip
        return met

    def _keep_for_revocation(
        self,
        connection: Connection,
        scan_id: str,
        findings: Iterable[Finding],
        met: Mapping[str, Met],
    ) -> None:
        wanted = incidents.without_held_token(connection, met)
        ids = {met[incident_id].token.token_id: incident_id for incident_id in wanted}
        for finding in findings:
            token = finding.lookup.token
            incident_id = None if token is None else ids.pop(token.token_id, None)
            if incident_id is not None:
                waiting = Waiting(finding.found.candidate.secret, (finding.found,))
                self._hold(
                    connection, scan_id, [waiting], cause=Cause.REVOCATION, incident_id=incident_id
                )

    def _hold(
        self,
        connection: Connection,
        scan_id: str,
        waiting: Iterable[Waiting],
        *,
        cause: Cause,
        first_ms: int = 0,
        incident_id: str | None = None,
    ) -> None:
        sealed.hold(
            connection,
            scan_id,
            waiting,
            store=self.store.name,
            cause=cause,
            sealer=self.sealer,
            key=self.keys[0],
            keep_ms=self.keep_ms,
            first_ms=first_ms,
            incident_id=incident_id,
        )

    def _ask_again(self, connection: Connection, judged: Judged) -> Judged:
        """Ask about tokens that were unknown, while none can be issued: one that came since must
        meet its leak."""
        unknown = [one for one in judged.findings if _is_unknown(one)]
        if not unknown or not isinstance(self.store, MeetsLatecomers):
            return judged
        chains.lock_for_sightings(connection)
        asked = list(dict.fromkeys(one.found.candidate.secret for one in unknown))
        answers = dict(zip(asked, self.store.find(asked), strict=True))
        return replace(
            judged,
            findings=tuple(
                replace(one, lookup=answers[one.found.candidate.secret])
                if _is_unknown(one)
                else one
                for one in judged.findings
            ),
        )

    def _digests(self, findings: Iterable[Finding]) -> dict[str, Sequence[tuple[str, str]]]:
        """What the store may know a token by later, and does not know yet: by fingerprint, under
        every key of the ring."""
        if not isinstance(self.store, MeetsLatecomers):
            return {}
        unknown = {
            (one.found.candidate.pattern, one.found.candidate.secret)
            for one in findings
            if _is_unknown(one)
        }
        return {
            fingerprint(key, pattern, secret): digests
            for pattern, secret in unknown
            for digests in [self.store.digests(secret)]
            for key in self.keys
        }

    def _is_bound(self, found: LocatedCandidate) -> bool:
        return found.candidate.pattern in self.bound

    def _masked(self, found: LocatedCandidate) -> LocatedCandidate:
        path = verdicts.kept_path(self.redact(found.place.path or ""))
        return replace(found, place=replace(found.place, path=path))


def _is_of(finding: Finding, token: TokenRecord) -> bool:
    found = finding.lookup.token
    return found is not None and found.token_id == token.token_id


def _is_silent(lookup: Lookup) -> bool:
    return lookup.validity is Validity.STORE_UNAVAILABLE


def _is_unknown(finding: Finding) -> bool:
    return finding.lookup.validity is Validity.NEVER_ISSUED


def _finding(found: LocatedCandidate, lookup: Lookup) -> Finding:
    return Finding(found, lookup, found.place.path or "")


def _by_secret(found: Iterable[LocatedCandidate]) -> tuple[Waiting, ...]:
    places: dict[Secret, list[LocatedCandidate]] = {}
    for one in found:
        places.setdefault(one.candidate.secret, []).append(one)
    return tuple(Waiting(secret, tuple(seen)) for secret, seen in places.items())
