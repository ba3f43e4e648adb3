"""The Celery app. The broker only wakes workers; the database holds the work (law 2)."""

from __future__ import annotations

import logging
import re
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from kombu.exceptions import KombuError
from kombu.pools import producers
from kombu.transport import get_transport_cls

from scanner.embedded import broker
from scanner.errors import ConfigurationError
from scanner.metrics import WAKES_FAILED
from scanner.settings import Settings

log = logging.getLogger(__name__)

QUEUE = "patrol"
SCAN, RECHECK, RESPOND, DELIVER, TICK, SEAL = (
    f"patrol.{name}" for name in ("scan", "recheck", "respond", "deliver", "tick", "seal")
)
_BEAT_SECONDS = 1.0
_WAKE_SECONDS = 1.0  # to reach the broker, and to wait for its answer; a push waits for a wake
_WAKE_OPTIONS = {
    "max_retries": 0,
    "socket_connect_timeout": _WAKE_SECONDS,  # Redis has no limit of its own
    "socket_timeout": _WAKE_SECONDS,
}


@setup_logging.connect(weak=False)
def _leave_logging_alone(**_kwargs: object) -> None:
    """Celery sets logging up itself unless somebody answers; logs.py has done it."""


def make_app(settings: Settings) -> Celery:
    """Build the Celery app for these settings; tasks are added by `tasks.register`.

    Errors: `ConfigurationError` for a broker that cannot be used.
    """
    options: dict[str, Any]
    if settings.broker_url is not None:
        url, options = settings.broker_url.get_secret_value(), {}
        _check_transport(url)
    else:
        url, options = broker.configure(settings.data_dir)
    app = Celery("patrol", broker=url)
    app.conf.update(
        broker_transport_options=options,
        broker_connection_retry_on_startup=True,
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        enable_utc=True,
        # Beyond its lease another worker may have the work.
        task_time_limit=settings.lease_seconds,
        beat_scheduler="celery.beat:Scheduler",
        beat_max_loop_interval=_BEAT_SECONDS,
        beat_schedule={
            task: {
                "task": task,
                "schedule": _BEAT_SECONDS,
                # Nobody took it before the next one comes: drop it, so that a stopped worker
                # does not find thousands of them.
                "options": {"expires": 5 * _BEAT_SECONDS},
            }
            for task in (TICK, SEAL)
        },
    )
    app.set_default()
    return app


def _check_transport(url: str) -> None:
    scheme = re.split("[+:]", url)[0]
    try:
        get_transport_cls(scheme)
    except (KeyError, ImportError):
        raise ConfigurationError(
            f"PATROL_BROKER_URL: nothing here speaks {scheme}://; use redis://host:6379/0"
        ) from None


def check_broker(app: Celery) -> str:
    """Return the broker's address, without a password. Errors: `ConfigurationError`."""
    with app.connection_for_write(
        connect_timeout=_WAKE_SECONDS, transport_options=_WAKE_OPTIONS
    ) as connection:
        address = str(connection.as_uri())
        try:
            connection.ensure_connection(max_retries=1)
        except (KombuError, OSError) as error:
            raise ConfigurationError(
                f"{address} does not answer ({type(error).__name__}); start it, or set "
                "PATROL_BROKER_URL"
            ) from None
    return address


class CeleryWaker:
    """Wakes workers through the broker. Satisfies `ports.Waker`.

    It has connections of its own: the app's would knock for seconds at a broker that is away, and
    wait for ever for one that hangs. Safe to share between threads and to carry over a fork.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._broker = app.connection_for_write(
            connect_timeout=_WAKE_SECONDS, transport_options=_WAKE_OPTIONS
        )

    def wake(self, task: str) -> None:
        """Send one wake; a broker that is away costs time only, the sweep finds the work."""
        try:
            with producers[self._broker].acquire(block=True, timeout=_WAKE_SECONDS) as producer:
                self._app.send_task(task, producer=producer, expires=60, retry=False)
        except (KombuError, OSError) as error:
            WAKES_FAILED.add()
            log.warning("the broker did not take a wake for %s: %s", task, type(error).__name__)
