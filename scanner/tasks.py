"""The steps of work and the tasks that start them: without arguments worth stealing, each claims a
batch from the database.

A step is started by a wake from the broker or, where none comes, by the process's own pulse
(pulse.py). It may take long, so it watches a deadline; whoever started the process watches that it
keeps to it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any

from celery import Celery
from celery.beat import Scheduler

from scanner.bootstrap import Services
from scanner.db import audit, heartbeats, late
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
from scanner.worker import DELIVER, QUEUES, RECHECK, RESPOND, SCANS, SEAL, TICK

log = logging.getLogger(__name__)

_SEAL_SECONDS = 0.5  # then beat has other things to do
BEAT_SILENT_MS = 10_000
STAND_IN = "stand-in"  # the heartbeat of whoever does beat's round while beat is silent
_TABLES = {RESPOND: incidents, RECHECK: sealed_candidates, DELIVER: outbox}
_FOLLOW = {RECHECK: (RESPOND,), RESPOND: (DELIVER,)}


class Steps:
    """What a process does when its tasks are called; built once in each process.

    `busy_until` is told, before each step, the moment of the machine's monotonic clock at which it
    must have ended, and 0 when it has. After `stand_in_after` seconds it does beat's round when
    nobody has done it for ten.
    """

    def __init__(
        self,
        services: Services,
        waker: Waker,
        *,
        busy_until: Callable[[float], None] = lambda _moment: None,
        stand_in_after: float = BEAT_SILENT_MS / 1000,
    ) -> None:
        self._services, self._waker, self._busy_until = services, waker, busy_until
        self._deadline = Deadline()
        # Before, beat may be starting as we are.
        self._may_stand_in_from = monotonic() + stand_in_after
        self.is_stopping = False
        self.done = 0  # steps that found something to do
        self.last = -math.inf  # when a step ended
        self._steps: Mapping[str, Callable[[Deadline], bool]] = {
            # Built only where they are used.
            RESPOND: lambda end: services.responder.run_batch(end),  # noqa: PLW0108
            RECHECK: lambda end: services.rechecker.run_batch(end),  # noqa: PLW0108
            DELIVER: lambda end: services.deliverer.run_batch(end),  # noqa: PLW0108
            **{task: self._scan(lane) for lane, task in SCANS.items()},
        }

    def _scan(self, lane: Lane) -> Callable[[Deadline], bool]:
        def step(end: Deadline) -> bool:
            return self._services.scanner.run_batch(
                end, lane=lane, on_leak=lambda: self._waker.wake(RESPOND)
            )

        return step

    def run(self, task: str) -> bool:
        """Do one step; False: there was nothing to do, or the database is away."""
        settings = self._services.settings
        self._deadline = deadline = Deadline(settings.batch_seconds)
        if self.is_stopping:  # not asked before: a signal may come in between
            return False
        self._busy_until(monotonic() + settings.task_seconds)
        found = False
        try:
            found = self._steps[task](deadline)
        except DATABASE_AWAY as error:
            log.warning("%s: the database did not answer: %s", task, name_of(error))
        finally:
            self._busy_until(0)
            self.last = monotonic()
        if found:
            self.done += 1
            for woken in _FOLLOW.get(task, ()):
                self._waker.wake(woken)
            self._waker.wake(task)  # more may wait behind this batch
        return found

    def report(self, name: str) -> None:
        """Say that this process lives and, where beat has been silent for long, do its round."""
        may_stand_in = monotonic() >= self._may_stand_in_from
        try:
            with self._services.database.begin() as connection:
                heartbeats.report(connection, name)
                is_ours = may_stand_in and heartbeats.take_over(
                    connection, heartbeats.BEAT, BEAT_SILENT_MS
                )
                if is_ours:
                    heartbeats.report(connection, STAND_IN)
            if is_ours:
                log.warning("beat is silent; this worker does its round")
                tick(self._services, self._waker)
                _seal(self._services)
        except DATABASE_AWAY as error:
            log.warning("the database did not answer: %s", name_of(error))

    def stop(self) -> None:
        """Begin nothing any more, and end in time what was begun. Safe in a signal's handler."""
        self.is_stopping = True
        self._deadline.cut(self._services.settings.stop_seconds)


def register(app: Celery, services: Services, waker: Waker, steps: Steps | None = None) -> None:
    """Add Patrol's tasks to this app alone: they work on `services`."""
    working = steps or Steps(services, waker)

    def add(name: str, call: Callable[[], object]) -> None:
        @app.task(name=name, shared=False)
        def run() -> None:
            call()

    for name in QUEUES:
        add(name, partial(working.run, name))
    add(TICK, lambda: tick(services, waker))
    add(SEAL, lambda: _seal(services))


def tick(services: Services, waker: Waker) -> None:
    """Beat's round: due watches become scans, and lost work is found again."""
    settings = services.settings
    turn_seal_keys(services.database, settings.seal_ring, settings.seal_days)
    late.prune_old(services.database, settings.unknown_days)
    with services.database.begin() as connection:
        heartbeats.report(connection, heartbeats.BEAT)
        accept_due_watches(connection)
        waiting = [task for task, table in _TABLES.items() if is_ready(connection, table)]
        if RECHECK not in waiting and any_expired(connection):
            waiting.append(RECHECK)
        waiting += [task for lane, task in SCANS.items() if is_ready(connection, scans, lane)]
    for task in waiting:
        waker.wake(task)


def _seal(services: Services) -> None:
    seal_all(services, _SEAL_SECONDS)


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
    """Beat does its rounds itself instead of sending them: they need no broker and no worker."""

    # Beat would ask for one before each round, and wait for a broker that is away.
    producer = None  # type: ignore[assignment]

    def apply_async(
        self, entry: Any, producer: Any = None, advance: bool = True, **_kwargs: Any
    ) -> None:
        """Run the entry's task here and now."""
        entry = self.reserve(entry) if advance else entry
        self.app.tasks[entry.task]()
