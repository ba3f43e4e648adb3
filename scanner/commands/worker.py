"""patrol worker: processes that do the work, each for some of the queues."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import click
from celery.exceptions import SecurityWarning

from scanner import alive, logs, metrics
from scanner.bootstrap import Services
from scanner.commands.process import check_settings, prepare, shows_counts, start_counting
from scanner.fleet import BusyUntil, Fleet
from scanner.pulse import PulsedConsumer, end_worker
from scanner.settings import Settings
from scanner.slots import NAMES, Slot, plan
from scanner.tasks import Steps, register, stand_in_after
from scanner.web.scrape import serve_alone
from scanner.worker import CeleryWaker, make_app

log = logging.getLogger(__name__)

_REPORT_SECONDS = 5.0
_LEAST_GROWTH = 64 << 20  # bytes
_AWAY_PULSE_SECONDS = 1.0  # the broker is known to be away
_IDLE_PULSE_SECONDS = 5.0  # it answers, and says nothing


class _Queues(click.ParamType[tuple[str, ...]]):
    name = "queues"

    def convert(self, value: Any, parameter: Any, context: Any) -> tuple[str, ...]:
        if not isinstance(value, str):
            return tuple(value)
        names = tuple(part.strip() for part in value.split(",") if part.strip())
        unknown = [name for name in names if name not in NAMES]
        if unknown or not names:
            self.fail(f"choose from {', '.join(NAMES)}", parameter, context)
        return names


@click.command()
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="processes for scans; half of them are kept for reports and webhooks",
)
@click.option("--queues", type=_Queues(), default=NAMES, help=f"some of: {','.join(NAMES)}")
def worker(concurrency: int, queues: tuple[str, ...]) -> None:
    """Take work from the database, woken by the broker."""
    built = prepare("worker")
    check_settings(built)
    settings = built.settings
    make_app(settings)
    service = start_counting("worker", settings)
    slots = plan(queues, concurrency)
    alive.begin(alive.folder_of(settings.data_dir), "worker", [slot.name for slot in slots])
    members: dict[str, Callable[[BusyUntil], int]] = {
        slot.name: partial(run_slot, built, slot) for slot in slots
    }
    if shows_counts(settings):
        members["metrics"] = partial(_serve_counts, settings, service)
    built.engine.dispose()  # a connection must not be shared by a fork
    Fleet(members, stop_seconds=settings.stop_seconds).run()


def _serve_counts(settings: Settings, service: Path, _busy_until: BusyUntil) -> int:
    """Show what all of them count; the parent has no threads."""
    serve_alone(settings, service)
    while True:
        signal.pause()


def run_slot(built: Services, slot: Slot, busy_until: BusyUntil) -> int:
    """Be the process of a slot until told to stop, or until it should be replaced; returns 0."""
    settings = built.settings
    os.nice(slot.niceness)
    logs.configure(
        f"worker-{slot.name}",
        style=settings.log_format,
        level=settings.log_level,
        redact=built.matcher.redact,
    )
    metrics.become(slot.name)  # whoever replaces us counts on in our files
    # Root is no danger here: messages are JSON without arguments.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    app = make_app(settings)
    waker = CeleryWaker(app)
    sign = alive.Sign(alive.folder_of(settings.data_dir), "worker", slot.name)

    def busy(moment: float) -> None:
        busy_until(moment)
        sign.busy_until(moment)

    steps = Steps(
        built, waker,
        busy_until=busy, stand_in_after=stand_in_after(slot), turns=slot.steps,
    )  # fmt: skip
    register(app, built, waker, steps)
    if slot.scans:
        # Compiled patterns are ready before the first push is.
        reached = built.inspector.describe()
        log.log(
            logging.INFO if all(reached.values()) else logging.WARNING,
            "packs are read in a child process",
            extra=dict(reached),
        )
    most = most_bytes(settings, _resident_bytes())
    pulse = Pulse(slot, steps, sign, is_worn_out=partial(_is_worn_out, built, steps, most))
    _worker_class(app, steps)(
        hostname=f"{slot.name}@%h",
        queues=list(slot.queues),
        pool_cls="solo",  # this process itself works: fleet.py watches it
        concurrency=1,
        consumer_cls=partial(PulsedConsumer, pulse=pulse),
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    ).start()
    built.inspector.close()
    return 0


def _worker_class(app: Any, steps: Steps) -> Any:
    def stop(_signal: int, _frame: object) -> None:
        end_worker()
        steps.stop()

    class Worker(app.Worker):  # type: ignore[misc]  # Celery makes its classes at run time
        def install_platform_tweaks(self, _worker: object) -> None:
            # Of Celery's many signals one is needed; the parent kills who does not stop.
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to hear

    return Worker


class Pulse:
    """What a process does of its own accord: look for work, say that it lives, and end when it has
    grown too large."""

    def __init__(
        self, slot: Slot, steps: Steps, sign: alive.Sign, is_worn_out: Callable[[], bool]
    ) -> None:
        self._slot, self._steps, self._is_worn_out = slot, steps, is_worn_out
        self._sign = sign
        self._reported = self._looked = -_REPORT_SECONDS
        self._found = False

    def __call__(self, is_away: bool) -> bool:
        """At most one step; True: there may be more to do."""
        if monotonic() - self._reported >= _REPORT_SECONDS:
            if self._steps.report(self._slot.heartbeat):
                self._sign.well()
            self._reported = monotonic()
        if self._is_worn_out():
            end_worker()
            return False
        quiet = monotonic() - max(self._steps.last, self._looked)
        if not self._found and quiet < (_AWAY_PULSE_SECONDS if is_away else _IDLE_PULSE_SECONDS):
            return False
        self._found = any(self._steps.run(step) for step in self._slot.steps)
        self._looked = monotonic()
        return self._found


def most_bytes(settings: Settings, size: int) -> int:
    """How large a process may grow that is so large (bytes) at its start: as large as is set, but
    large enough to work at all."""
    most = settings.worker_max_memory_mb << 20
    if most < size + _LEAST_GROWTH:
        log.warning(
            "PATROL_WORKER_MAX_MEMORY_MB is %d, and a process has %d MiB at its start; it may grow "
            "by %d MiB",
            most >> 20, size >> 20, _LEAST_GROWTH >> 20,
        )  # fmt: skip
    return max(most, size + _LEAST_GROWTH)


def _is_worn_out(built: Services, steps: Steps, most: int) -> bool:
    settings = built.settings
    if steps.done >= settings.worker_max_tasks:
        log.info("%d tasks are done; a fresh process takes over", steps.done)
        return True
    size = _resident_bytes()
    if size > most:
        log.warning("this process has grown to %d MiB; a fresh one takes over", size >> 20)
        return True
    return False


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
