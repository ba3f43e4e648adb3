"""Notices kept in memory: for tests, and for trying a policy without telling anybody."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from notifier.errors import DeliveryError
from notifier.notice import Notice
from notifier.render import Rendered


@dataclass(frozen=True, slots=True)
class Delivery:
    """A notice and the words it was delivered with."""

    notice: Notice
    mail: Rendered


class MemoryChannel:
    """Keeps what it is sent. Satisfies `notify.Channel`; safe to share between threads.

    After `refuse`, nothing is delivered until `accept` is called.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._delivered: list[Delivery] = []
        self._is_refusal_permanent: bool | None = None

    @property
    def delivered(self) -> Sequence[Delivery]:
        """What was delivered so far, oldest first."""
        with self._lock:
            return tuple(self._delivered)

    def refuse(self, *, permanent: bool) -> None:
        """Fail every delivery from now on; `permanent`: no later attempt is worth it."""
        with self._lock:
            self._is_refusal_permanent = permanent

    def accept(self) -> None:
        """Deliver again."""
        with self._lock:
            self._is_refusal_permanent = None

    def send(self, notice: Notice, mail: Rendered) -> None:
        """Deliver one notice, or raise the `DeliveryError` that `refuse` asked for."""
        with self._lock:
            if self._is_refusal_permanent is not None:
                text = "the channel was told to refuse"
                raise DeliveryError(text, permanent=self._is_refusal_permanent)
            self._delivered.append(Delivery(notice, mail))
