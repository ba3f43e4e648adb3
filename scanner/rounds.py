"""Beat's round: what is done every second, by beat or, while it is silent, by a worker."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from celery.beat import Scheduler

from scanner.bootstrap import Services
from scanner.db import audit, heads, heartbeats, late
from scanner.db.alarms import warn_of_seals
from scanner.db.engine import DATABASE_AWAY
from scanner.db.lanes import Lane
from scanner.db.leases import is_ready
from scanner.db.scans import accept_due_watches
from scanner.db.schema import incidents, outbox, scans, sealed_candidates
from scanner.db.sealed import any_expired
from scanner.db.sealkeys import turn_seal_keys
from scanner.deadline import Deadline
from scanner.errors import name_of
from scanner.ports import Waker
from scanner.worker import DELIVER, RECHECK, RESPOND, SCANS

log = logging.getLogger(__name__)

_SEAL_SECONDS = 0.5  # then beat has other things to do
_WARNING, _HOUR_MS = "warn-of-seals", 3_600_000
_PRUNE_SECONDS = 5.0  # the rest has time until the next hour
TABLES: Mapping[str, Any] = {RESPOND: incidents, RECHECK: sealed_candidates, DELIVER: outbox}


class Round:
    """Does beat's duties, each on its own: one that fails stops no other. Built once a process.

    A round is reported when all of it was done, so that one that fails for long is seen as silence:
    as `reports` in the database, and by calling `well`. Who stands in for beat is not beat.
    """

    def __init__(
        self,
        services: Services,
        waker: Waker,
        *,
        reports: Sequence[str] = (heartbeats.ROUND,),
        well: Callable[[], None] = lambda: None,
    ) -> None:
        self._services, self._waker = services, waker
        self._reports, self._well = reports, well
        self._failing: dict[str, str] = {}  # duty -> the fault that was logged

    def __call__(self) -> None:
        """Turn the keys of the day, forget what is old, accept due watches, wake for lost work.

        Raises only what says that the database is away.
        """
        done = [
            self._did("the day's seal keys", self._turn_keys),
            self._did("forgetting what is old", self._prune),
            self._did("warning of seals that end", self._warn),
            self._did("due watches", self._accept_watches),
            self._did("looking for lost work", self._wake),
        ]
        if all(done):
            with self._services.database.begin() as connection:
                for name in self._reports:
                    heartbeats.report(connection, name)
            self._well()

    def seal(self) -> None:
        """Seal as many audit events as half a second allows."""
        self._did("sealing the audit trail", lambda: seal_all(self._services, _SEAL_SECONDS))

    def _did(self, duty: str, do: Callable[[], object]) -> bool:
        try:
            do()
        except DATABASE_AWAY:
            raise
        except Exception as error:
            if self._failing.get(duty) != name_of(error):  # once, not each second
                log.exception("%s failed", duty)
            self._failing[duty] = name_of(error)
            return False
        if self._failing.pop(duty, None) is not None:
            log.info("%s: done again", duty)
        return True

    def _turn_keys(self) -> None:
        settings = self._services.settings
        turn_seal_keys(self._services.database, settings.seal_ring, settings.seal_days)

    @property
    def _live_keys(self) -> frozenset[str]:
        return self._services.sealer.key_ids

    def _prune(self) -> None:
        days = self._services.settings.unknown_days
        late.prune_old(self._services.database, days, Deadline(_PRUNE_SECONDS))
        heads.prune_heads(self._services.database, Deadline(_PRUNE_SECONDS))

    def _warn(self) -> None:
        with self._services.database.begin() as connection:
            if heartbeats.begin_round(connection, _WARNING, _HOUR_MS):
                warn_of_seals(connection)

    def _accept_watches(self) -> None:
        with self._services.database.begin() as connection:
            accept_due_watches(connection)

    def _wake(self) -> None:
        with self._services.database.begin() as connection:
            waiting = [task for task, table in TABLES.items() if is_ready(connection, table)]
            if RECHECK not in waiting and any_expired(connection, self._live_keys):
                waiting.append(RECHECK)
            lanes: Mapping[Lane, str] = SCANS
            waiting += [task for lane, task in lanes.items() if is_ready(connection, scans, lane)]
        for task in waiting:
            self._waker.wake(task)


def seal_all(services: Services, seconds: float = math.inf) -> int:
    """Seal every audit event there is, or as many as the time allows; returns how many."""
    deadline, sealed = Deadline(seconds), 0
    while not deadline.is_over:
        with services.database.begin() as connection:
            count = audit.seal(connection)
        sealed += count
        if count == 0:
            break
    return sealed


class InPlaceScheduler(Scheduler):
    """Beat does its rounds itself instead of sending them: they need no broker and no worker.

    When they are due is told by the clock that nobody can set: with Celery's own reckoning a clock
    that is set back by ten minutes would keep beat silent for as long.
    """

    # Beat would ask for one before each round, and wait for a broker that is away.
    producer = None  # type: ignore[assignment]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._due: dict[str, float] = {}
        super().__init__(*arguments, **options)

    def tick(self, *_arguments: Any, **_options: Any) -> float:
        """Run what is due; returns the seconds until something is again."""
        for name, entry in self.schedule.items():
            if self._due.get(name, 0.0) <= monotonic():
                every: Any = entry.schedule
                self._due[name] = monotonic() + every.run_every.total_seconds()
                self.apply_entry(entry)
        return max(0.0, min(self._due.values()) - monotonic())

    def apply_async(
        self, entry: Any, producer: Any = None, advance: bool = True, **_kwargs: Any
    ) -> None:
        """Run the entry's task here and now."""
        entry = self.reserve(entry) if advance else entry
        self.app.tasks[entry.task]()
