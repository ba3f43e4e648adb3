"""A worker that needs no broker: without wakes it looks for work of its own accord.

Celery's consumer is woken by messages. This one also has a pulse: when no step ended for a while,
it looks for work itself. It does so while it is connected and hears nothing (wakes were lost, beat
is gone, the broker hangs), and between its attempts to connect (the broker is away, or refuses).
All of it happens in the main thread, one step at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker import state
from celery.worker.consumer import Consumer

log = logging.getLogger(__name__)

_RUNNING = 1  # celery.bootsteps.RUN, of which its stubs know nothing
_LOOK_SECONDS = 1.0
_RECONNECT_SECONDS = 1.0
_IN_A_ROW = 64  # steps between two attempts to connect


def end_worker() -> None:
    """Let the Celery worker of this process end when its present step has. Safe in a signal's
    handler."""
    state.should_stop = 0  # type: ignore[assignment]  # an exit code, once it is set


class PulsedConsumer(Consumer):
    """Celery's consumer, with `pulse`: called about each second with whether the broker is known to
    be away; does at most one step, and says whether it found something to do."""

    def __init__(self, *arguments: Any, pulse: Callable[[bool], bool], **options: Any) -> None:
        self._pulse = pulse
        self._beats: Any = None
        self._said_away = False
        super().__init__(*arguments, **options)

    def connect(self) -> Any:
        """Connect; what goes wrong after the first handshake must not keep work waiting either."""
        self._between_attempts()
        return super().connect()

    def ensure_connected(self, conn: Any) -> Any:
        """Try until the broker answers, and work meanwhile."""
        conn = conn.ensure_connection(
            self._not_connected, None,
            interval_start=_RECONNECT_SECONDS, interval_step=0, interval_max=_RECONNECT_SECONDS,
            callback=self._between_attempts,
        )  # fmt: skip
        self.first_connection_attempt = False
        if self._said_away:
            log.info("the broker %s answers", conn.as_uri())
        self._said_away = False
        return conn

    def on_ready(self) -> None:
        """Begin to look, once."""
        super().on_ready()
        if self._beats is None:
            self._beats = self.timer.call_repeatedly(
                _LOOK_SECONDS, lambda: self.call_soon(self._while_connected)
            )

    def _not_connected(self, error: Exception, _interval: float) -> None:
        if not self._said_away:
            log.warning(
                "the broker %s does not answer (%s); workers look for work themselves",
                self.app.connection_for_read().as_uri(), type(error).__name__,
            )  # fmt: skip
        self._said_away = True

    def _between_attempts(self) -> None:
        for _ in range(_IN_A_ROW):
            state.maybe_shutdown()
            if not self._pulse(True):
                break
        state.maybe_shutdown()

    def _while_connected(self) -> None:
        # One step, then messages and signals have their turn.
        if self.blueprint.state == _RUNNING and self._pulse(False):
            self.call_soon(self._while_connected)
