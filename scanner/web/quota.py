"""How many tokens a caller may look up in a minute (threat 5): a stolen service token, or a service
that was broken into, must not be an oracle for whole collections of tokens.

Every token that is asked about costs one, whatever becomes of the question, and a request costs one
at least. All web processes count together, in the database. To spare it a write a request, each
takes some in advance: what it has not spent when the minute ends is lost, so callers get a little
less than the limit where several processes serve them, and never more. Without the database there
is no quota, and so no answer.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from math import ceil
from threading import Lock
from time import monotonic

from fastapi import Request
from sqlalchemy import Engine

from scanner.db.quotas import take
from scanner.errors import IntakeError

log = logging.getLogger(__name__)

_MINUTE_MS = 60_000
_ADVANCES = 100  # a minute's limit comes in so many pieces


class QuotaUsedUpError(IntakeError):
    """The caller has asked too much; `retry_after`: whole seconds until he may ask again."""

    status = 429

    def __init__(self, retry_after: int) -> None:
        super().__init__("Too many look-ups; the header Retry-After says when there are more.")
        self.retry_after = retry_after


@dataclass(slots=True)
class _Purse:
    """What this process may still spend for a caller until `ends`, by the machine's own clock."""

    left: int = 0
    window: int = -1
    ends: float = 0.0
    refused: int | None = None  # so many at once were not to be had in this window
    lock: Lock = field(default_factory=Lock)


class Quota:
    """`limit` look-ups for each caller in `each_ms`. Safe to share between threads."""

    def __init__(self, engine: Engine, limit: int, each_ms: int = _MINUTE_MS) -> None:
        self._engine, self._limit, self._each_ms = engine, limit, each_ms
        self._purses: defaultdict[str, _Purse] = defaultdict(_Purse)

    def spend(self, caller: str, amount: int) -> None:
        """Pay for `amount` look-ups, all or none.

        Errors: `QuotaUsedUpError`, and those of the database.
        """
        purse = self._purses[caller]
        with purse.lock:
            if monotonic() >= purse.ends:
                purse.left, purse.refused = 0, None
            while purse.left < amount:
                self._refill(purse, caller, amount - purse.left)
            purse.left -= amount

    def _refill(self, purse: _Purse, caller: str, missing: int) -> None:
        began = monotonic()  # before the database looks at its clock: no minute lasts longer here
        if purse.refused is None or missing < purse.refused:
            wanted = max(missing, self._limit // _ADVANCES)
            with self._engine.begin() as connection:
                taken = take(
                    connection, caller, self._limit,
                    each_ms=self._each_ms, wanted=wanted, at_least=missing,
                )  # fmt: skip
            if taken.window != purse.window:
                purse.left, purse.window = 0, taken.window
            purse.ends = began + taken.ends_in_ms / 1000
            purse.left += taken.amount
            if taken.amount:
                return
            purse.refused = missing
            log.warning("the look-ups of this minute are used up", extra={"caller": caller})
        raise QuotaUsedUpError(max(1, ceil(purse.ends - began)))

    def charge(self, request: Request) -> None:
        """A dependency behind a gate: the caller pays for one look-up before the body is read."""
        self.spend(request.state.caller, 1)
