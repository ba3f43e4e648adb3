"""Webhooks as GitHub delivers them: late, out of order, again after a failure, sometimes twice."""

from __future__ import annotations

import hashlib
import heapq
import hmac
import json
import random
import secrets
import threading
import time
from collections import Counter
from typing import Self

import httpx2

from tests.chaos.repositories import ZEROS, Pushed

_TIMEOUT = 10.0  # GitHub's own
_LATEST = 2.0  # seconds a delivery may be late
_AGAIN = (2.0, 6.0)  # seconds until a failed one is delivered again
_TWICE = 0.05  # of those that were taken are delivered once more
_SENDERS = 3


class Deliveries:
    """Sends what it is given until it was taken."""

    def __init__(self, url: str, secret: str, rng: random.Random) -> None:
        self._url, self._key, self._rng = f"{url}/webhooks/github", secret.encode(), rng
        self._queue: list[tuple[float, str, bytes]] = []
        self._changed = threading.Condition()
        self._open = 0
        self._is_over = False
        self.counts: Counter[str] = Counter()
        self.refused: list[str] = []
        self._threads = [
            threading.Thread(target=self._send_all, name=f"deliveries-{n}") for n in range(_SENDERS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def add(self, push: Pushed) -> None:
        """Announce a push, sooner or later."""
        event = {
            "ref": push.ref, "before": push.before, "after": push.after, "forced": push.forced,
            "deleted": push.after == ZEROS, "repository": {"full_name": push.repository},
            "nonce": secrets.token_hex(8),
        }  # fmt: skip
        self._put(self._rng.uniform(0, _LATEST), secrets.token_hex(8), json.dumps(event).encode())

    @property
    def left(self) -> int:
        """How many were not taken yet."""
        with self._changed:
            return len(self._queue) + self._open

    def _put(self, delay: float, delivery: str, body: bytes) -> None:
        with self._changed:
            heapq.heappush(self._queue, (time.monotonic() + delay, delivery, body))
            self._changed.notify()

    def _send_all(self) -> None:
        while (taken := self._next()) is not None:
            delivery, body = taken
            delay = self._send(delivery, body)
            if delay is not None:
                self._put(delay, delivery, body)
            with self._changed:
                self._open -= 1

    def _next(self) -> tuple[str, bytes] | None:
        with self._changed:
            while not self._is_over:
                wait = self._queue[0][0] - time.monotonic() if self._queue else None
                if wait is not None and wait <= 0:
                    self._open += 1
                    return heapq.heappop(self._queue)[1:]
                self._changed.wait(wait)
        return None

    def _send(self, delivery: str, body: bytes) -> float | None:
        """Send once; returns in how many seconds to send it again, if at all."""
        signature = "sha256=" + hmac.new(self._key, body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json", "X-GitHub-Event": "push",
            "X-GitHub-Delivery": delivery, "X-Hub-Signature-256": signature,
        }  # fmt: skip
        try:
            answer = httpx2.post(
                self._url, content=body, headers=headers, trust_env=False, timeout=_TIMEOUT
            )
            status = answer.status_code
        except httpx2.HTTPError as error:
            status = 0
            self.counts[type(error).__name__] += 1
        self.counts[f"{status}"] += 1
        if status == 202:
            return self._rng.uniform(*_AGAIN) if self._rng.random() < _TWICE else None
        if 400 <= status < 500:
            self.refused.append(f"{status}: {answer.text[:200]}")
            return None
        return self._rng.uniform(*_AGAIN)
