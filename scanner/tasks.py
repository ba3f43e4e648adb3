"""The tasks: thin, without arguments worth stealing; each claims a batch from the database."""

from __future__ import annotations

from billiard import current_process
from celery import Celery
from celery.signals import worker_process_init, worker_shutdown

from scanner import metrics
from scanner.bootstrap import Services
from scanner.db import audit, heartbeats, late
from scanner.db.leases import is_ready
from scanner.db.scans import accept_due_watches
from scanner.db.schema import incidents, outbox, scans, sealed_candidates
from scanner.db.sealed import any_expired
from scanner.db.sealkeys import turn_seal_keys
from scanner.worker import DELIVER, RECHECK, RESPOND, SCAN, SEAL, TICK, CeleryWaker


def register(app: Celery, services: Services) -> None:
    """Add Patrol's tasks to this app alone: they work on `services`."""
    waker = CeleryWaker(app)

    @app.task(name=SCAN, shared=False)
    def scan() -> None:
        if services.scanner.run_batch():
            waker.wake(RESPOND)
            waker.wake(SCAN)  # more may wait behind this batch
            seal_all(services)  # every step seals its own events: no free worker is needed

    @app.task(name=RECHECK, shared=False)
    def recheck() -> None:
        if services.rechecker.run_batch():
            waker.wake(RESPOND)
            waker.wake(RECHECK)
            seal_all(services)

    @app.task(name=RESPOND, shared=False)
    def respond() -> None:
        if services.responder.run_batch():
            waker.wake(DELIVER)
            waker.wake(RESPOND)
            seal_all(services)

    @app.task(name=DELIVER, shared=False)
    def deliver() -> None:
        if services.deliverer.run_batch():
            waker.wake(DELIVER)
            seal_all(services)

    @app.task(name=TICK, shared=False)
    def tick() -> None:
        """Beat's task: due watches become scans, and lost work is found again."""
        settings = services.settings
        turn_seal_keys(services.database, settings.seal_ring, settings.seal_days)
        late.prune_old(services.database, settings.unknown_days)
        with services.database.begin() as connection:
            heartbeats.report(connection, heartbeats.BEAT)
            accept_due_watches(connection)
            waiting = {
                task
                for task, table in (
                    (SCAN, scans),
                    (RECHECK, sealed_candidates),
                    (RESPOND, incidents),
                    (DELIVER, outbox),
                )
                if is_ready(connection, table)
            }
            if any_expired(connection):
                waiting.add(RECHECK)
        for task in sorted(waiting):
            waker.wake(task)

    @app.task(name=SEAL, shared=False)
    def seal() -> None:
        seal_all(services)

    @worker_process_init.connect(weak=False)
    def _warm(**_kwargs: object) -> None:
        # Compiled patterns and the parsing child are ready before the first push is.
        services.engine.dispose(close=False)  # its connections are the parent's
        # The place in the pool, which passes to the next process when this one ends.
        metrics.become(str(current_process().index))  # type: ignore[attr-defined]
        services.inspector.warm()

    @worker_shutdown.connect(weak=False)
    def _last_seal(**_kwargs: object) -> None:
        seal_all(services)


def seal_all(services: Services) -> int:
    """Seal every audit event there is; returns how many."""
    sealed = 0
    while True:
        with services.database.begin() as connection:
            count = audit.seal(connection)
        sealed += count
        if count == 0:
            return sealed
