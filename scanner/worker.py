"""The Celery app: its tasks' names, its queues, and how workers are woken.

The broker only wakes workers; the database holds the work (law 2). Every task has a queue of its
own, so that who waits for one waits behind no other; slots.py says which process listens to which.
"""

from __future__ import annotations

import logging
from time import monotonic, perf_counter
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from kombu import Queue
from kombu.exceptions import KombuError
from kombu.pools import producers

from scanner.broker import Broker, resolve
from scanner.db.lanes import Lane
from scanner.errors import ConfigurationError
from scanner.metrics import WAKES_FAILED
from scanner.settings import Settings

log = logging.getLogger(__name__)

RECHECK, RESPOND, DELIVER, TICK, SEAL = (
    f"patrol.{name}" for name in ("recheck", "respond", "deliver", "tick", "seal")
)
SCANS = {lane: f"patrol.{lane.name.lower()}" for lane in Lane}
SCAN = SCANS[Lane.WEBHOOKS]
# What has a queue: beat does the others itself.
QUEUES = (RESPOND, RECHECK, DELIVER, *SCANS.values())

_BEAT_SECONDS = 1.0
_WAKE_SECONDS = 1.0  # to reach the broker, and to wait for its answer; a push waits for a wake
_WAKE_OPTIONS = {
    "max_retries": 0,
    "socket_connect_timeout": _WAKE_SECONDS,  # Redis has no limit of its own
    "socket_timeout": _WAKE_SECONDS,
}
# Each wake that waits will look at everything there is: more of them add nothing but parallelism.
_ENOUGH_WAKES = 16
_WAKE_EXPIRES_SECONDS = 60
_LONG_SECONDS = 0.2  # a broker that makes us wait so long for nothing is left alone for a while
_ALONE_SECONDS = 2.0


@setup_logging.connect(weak=False)
def _leave_logging_alone(**_kwargs: object) -> None:
    """Celery sets logging up itself unless somebody answers; logs.py has done it."""


def make_app(settings: Settings) -> Celery:
    """Build the Celery app for these settings; tasks are added by `tasks.register`.

    Errors: `ConfigurationError` for a broker that cannot be used.
    """
    broker = resolve(settings)
    app = Celery("patrol", broker=broker.url)
    app.conf.update(
        broker_transport_options=dict(broker.options),
        broker_use_ssl=None if broker.tls is None else dict(broker.tls),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A Redis that refuses (full, loading, no permission) is as good as one that is away.
        broker_channel_error_retry=True,
        task_queues=[Queue(name, routing_key=name) for name in QUEUES],
        task_routes={name: {"queue": name} for name in QUEUES},
        task_default_queue=QUEUES[0],
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_prefetch_count_reduction=False,
        enable_utc=True,
        beat_scheduler="scanner.rounds:InPlaceScheduler",
        beat_max_loop_interval=_BEAT_SECONDS,
        beat_schedule={task: {"task": task, "schedule": _BEAT_SECONDS} for task in (TICK, SEAL)},
    )
    app.set_default()
    return app


def queue_lengths(app: Celery, broker: Broker) -> tuple[dict[str, int], float]:
    """Ask the broker how many wakes wait in each queue; also returns how many seconds that took.

    Errors: `ConfigurationError` when it does not answer, with what to do.
    """
    with app.connection_for_write(
        connect_timeout=_WAKE_SECONDS,
        transport_options={**broker.options, **_WAKE_OPTIONS},
    ) as connection:
        errors = _errors(connection)
        try:
            connection.ensure_connection(max_retries=1)
            channel = connection.default_channel
            began = perf_counter()
            return {name: _length(channel, name) for name in QUEUES}, perf_counter() - began
        except errors as error:
            said = str(error) if type(error).__name__ in _TELLING else type(error).__name__
            raise ConfigurationError(
                f"{broker.address} does not answer ({said}); start it, or set PATROL_BROKER_URL"
            ) from None


# Redis's own words say which permission or which room is missing; they hold no value of ours.
_TELLING = {"NoPermissionError", "OutOfMemoryError", "ReadOnlyError"}


def _errors(connection: Any) -> tuple[type[Exception], ...]:
    return (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)


def _length(channel: Any, queue: str) -> int:
    """How many messages wait; 0 where the transport cannot tell."""
    size = getattr(channel, "_size", None)
    return 0 if size is None else int(size(queue))


class CeleryWaker:
    """Wakes workers through the broker. Satisfies `ports.Waker`.

    It has connections of its own: the app's would knock for seconds at a broker that is away, and
    wait for ever for one that hangs. Safe to share between threads and to carry over a fork.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        options = {**app.conf.broker_transport_options, **_WAKE_OPTIONS}
        self._broker = app.connection_for_write(
            connect_timeout=_WAKE_SECONDS, transport_options=options
        )
        self._errors = _errors(self._broker)
        self._left_alone_until = 0.0

    def wake(self, task: str) -> None:
        """Send one wake, unless enough of them wait already. A broker that is away costs time only,
        the sweep finds the work; and one that is slow to say so is not asked each time."""
        began = monotonic()
        if began < self._left_alone_until:
            return
        try:
            with producers[self._broker].acquire(block=True, timeout=_WAKE_SECONDS) as producer:
                if _length(producer.channel, task) < _ENOUGH_WAKES:
                    self._app.send_task(
                        task, producer=producer, expires=_WAKE_EXPIRES_SECONDS, retry=False
                    )
        except self._errors as error:
            WAKES_FAILED.add()
            log.warning("the broker did not take a wake for %s: %s", task, type(error).__name__)
            if monotonic() - began > _LONG_SECONDS:
                self._left_alone_until = monotonic() + _ALONE_SECONDS
