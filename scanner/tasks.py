"""The steps of work and the tasks that start them: without arguments worth stealing, each claims a
batch from the database.

A step is started by a wake from the broker or, where none comes, by the process's own pulse
(pulse.py). It may take long, so it watches a deadline; whoever started the process watches that it
keeps to it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from time import monotonic

from celery import Celery

from scanner.bootstrap import Services
from scanner.db import heartbeats
from scanner.db.engine import DATABASE_AWAY, reader
from scanner.db.lanes import Lane
from scanner.db.work import Found
from scanner.deadline import Deadline
from scanner.errors import name_of
from scanner.ports import Waker
from scanner.rounds import Round
from scanner.slots import Slot
from scanner.worker import DELIVER, QUEUES, RECHECK, RESPOND, SCANS, SEAL, TICK

log = logging.getLogger(__name__)

BEAT_SILENT_MS = 10_000
_TURN_SECONDS = 5.0
STAND_IN = "stand-in"  # the heartbeat of whoever does beat's round while beat is silent
_FOLLOW = {RECHECK: (RESPOND,), RESPOND: (DELIVER,)}


def stand_in_after(slot: Slot) -> float:
    """Seconds after its start from which a process may do beat's round. What does nothing but
    revoke never does: a revocation must not wait for anything else (law 4)."""
    return math.inf if slot.steps == (RESPOND,) else BEAT_SILENT_MS / 1000


class Steps:
    """What a process does when its tasks are called; built once in each process.

    `busy_until` is told, before each step, the moment of the machine's monotonic clock at which it
    must have ended, and 0 when it has. After `stand_in_after` seconds it does beat's round when
    nobody has done it for ten; never, when that is infinite. None of `turns`, the steps that share
    this process, waits for more than a few seconds because of the others.
    """

    def __init__(
        self,
        services: Services,
        waker: Waker,
        *,
        busy_until: Callable[[float], None] = lambda _moment: None,
        stand_in_after: float = BEAT_SILENT_MS / 1000,
        turns: Collection[str] = (),
    ) -> None:
        self._services, self._waker, self._busy_until = services, waker, busy_until
        self._round = Round(services, waker)
        self._deadline = Deadline()
        # Before, beat may be starting as we are.
        self._may_stand_in_from = monotonic() + stand_in_after
        self.is_stopping = False
        self._ran = {step: monotonic() for step in turns}  # when each last had its turn
        self.done = 0  # steps that found something to do
        self.last = -math.inf  # when a step ended
        self._steps: Mapping[str, Callable[[Deadline], Found]] = {
            # Built only where they are used.
            RESPOND: lambda end: services.responder.run_batch(end),  # noqa: PLW0108
            RECHECK: lambda end: services.rechecker.run_batch(end),  # noqa: PLW0108
            DELIVER: lambda end: services.deliverer.run_batch(end),  # noqa: PLW0108
            **{task: self._scan(lane) for lane, task in SCANS.items()},
        }

    def _scan(self, lane: Lane) -> Callable[[Deadline], Found]:
        def step(end: Deadline) -> Found:
            return self._services.scanner.run_batch(
                end, lane=lane, on_leak=lambda: self._waker.wake(RESPOND)
            )

        return step

    def run(self, task: str) -> bool:
        """Do one step; False: there was nothing to do, or the database is away.

        The broker gives out what is most urgent as long as there is any, so afterwards the steps
        that have waited for long have their turn.
        """
        found = self._run(task)
        for other, when in self._ran.items():
            if other != task and monotonic() - when > _TURN_SECONDS:
                self._run(other)
        return found

    def _run(self, task: str) -> bool:
        settings = self._services.settings
        self._deadline = deadline = Deadline(settings.batch_seconds)
        if self.is_stopping:  # not asked before: a signal may come in between
            return False
        self._busy_until(monotonic() + settings.task_seconds)
        found = Found.NOTHING
        try:
            found = self._steps[task](deadline)
        except DATABASE_AWAY as error:
            log.warning("%s: the database did not answer: %s", task, name_of(error))
        finally:
            self._busy_until(0)
            self.last = monotonic()
            if task in self._ran:
                self._ran[task] = self.last
        if found:
            self.done += 1
            for woken in _FOLLOW.get(task, ()):
                self._waker.wake(woken)
        if found is Found.SOME:
            self._waker.wake(task)
        return bool(found)

    def report(self, name: str) -> bool:
        """Say that this process lives and, where beat has been silent for long, do its round;
        False: the database did not hear it."""
        try:
            with self._services.database.begin() as connection:
                heartbeats.report(connection, name)
            if monotonic() >= self._may_stand_in_from and self._is_ours_to_do():
                log.warning("beat is silent; this worker does its round")
                self._stand_in()
        except DATABASE_AWAY as error:
            log.warning("the database did not answer: %s", name_of(error))
            return False
        return True

    def _is_ours_to_do(self) -> bool:
        """True for one process alone, when beat has been silent for long."""
        with reader(self._services.database).connect() as connection:
            # Only looked at: whoever writes the row of one that hangs would wait for it.
            if not heartbeats.is_silent(connection, heartbeats.BEAT, BEAT_SILENT_MS):
                return False
        with self._services.database.begin() as connection:
            return heartbeats.begin_round(connection, STAND_IN, BEAT_SILENT_MS)

    def _stand_in(self) -> None:
        self._busy_until(monotonic() + self._services.settings.task_seconds)
        try:
            self._round()
            self._round.seal()
        finally:
            self._busy_until(0)

    def stop(self) -> None:
        """Begin nothing any more, and end in time what was begun. Safe in a signal's handler."""
        self.is_stopping = True
        self._deadline.cut(self._services.settings.stop_seconds)


def register(
    app: Celery,
    services: Services,
    waker: Waker,
    steps: Steps | None = None,
    *,
    well: Callable[[], None] = lambda: None,
) -> None:
    """Add Patrol's tasks to this app alone: they work on `services`. `well` is called when beat has
    done a whole round."""
    working = steps or Steps(services, waker)

    def add(name: str, call: Callable[[], object]) -> None:
        @app.task(name=name, shared=False)
        def run() -> None:
            call()

    for name in QUEUES:
        add(name, partial(working.run, name))
    add(
        TICK,
        beats := Round(services, waker, reports=(heartbeats.ROUND, heartbeats.BEAT), well=well),
    )
    add(SEAL, beats.seal)
