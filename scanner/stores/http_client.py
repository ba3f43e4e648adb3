"""Asking a token service: guarded, bounded in bytes and time, tried again, and left alone when it
fails.

Nothing of a request or an answer is ever logged or said in an error: a body may hold tokens.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pybreaker
import stamina

from scanner.errors import ConnectError, StoreUnavailableError
from scanner.guard import ConnectGuard
from scanner.stores.http_auth import Signer
from scanner.stores.http_config import Limits

log = logging.getLogger(__name__)

_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
_IDLE_SECONDS = 30.0  # a connection that nobody used
_FIRST_WAIT, _LONGEST_WAIT, _JITTER = 0.1, 2.0, 0.2  # seconds between attempts
_FAR = 10**9  # seconds; our own timer ends the breaker's pause, clocks may jump


@dataclass(frozen=True, slots=True)
class Request:
    """One question. `statuses` are those that answer it without a body; `missing`, those that say
    "no such token", with a JSON body: without one anything on the way there may have said it."""

    method: str
    url: str  # never holds a token
    body: bytes = field(default=b"", repr=False)
    content_type: str | None = None
    statuses: frozenset[int] = frozenset()
    missing: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `value` is the JSON of a 200, None for one of the request's `statuses` or
    `missing`."""

    status: int
    value: Any = field(default=None, repr=False)


class _PassingError(StoreUnavailableError):
    """Another attempt may succeed at once, or after so many seconds."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class StoreClient:
    """Sends requests to one service, at most `limits.parallel` at once; lives in one event loop.

    Errors: `StoreUnavailableError` for whatever is no answer.
    """

    def __init__(
        self,
        name: str,
        guard: ConnectGuard,
        signer: Signer,
        tls: ssl.SSLContext | None,
        limits: Limits,
    ) -> None:
        self._name = name
        self._signer = signer
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.parallel)
        self._trying = False
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=limits.failures,
            reset_timeout=_FAR,
            exclude=[_is_ours],
            throw_new_error_on_trip=False,
            listeners=[_Pause(name, limits.pause_seconds)],
        )
        self._http = httpx2.AsyncClient(
            transport=guard.transport(tls, limits.parallel, _IDLE_SECONDS),
            timeout=httpx2.Timeout(limits.seconds, connect=limits.connect_seconds, pool=None),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, request: Request, until: float = math.inf) -> Answer:
        """Return the service's answer, after as many attempts as the limits allow; nothing is sent
        any more when the loop's clock says `until`."""
        async with self._slots:
            if asyncio.get_running_loop().time() > until:
                raise StoreUnavailableError(
                    f"The store {self._name} is too slow for so many tokens at once "
                    "(limits.lookup_seconds)."
                )
            try:
                async with asyncio.timeout(self._limits.budget_seconds) as budget:
                    return await self._persist(request, budget.when() or 0.0)
            except TimeoutError:
                pass
        raise StoreUnavailableError(
            f"The store {self._name} did not answer in {self._limits.budget_seconds:g} seconds."
        )

    async def _persist(self, request: Request, deadline: float) -> Answer:
        def again(error: Exception) -> bool | float:
            if not isinstance(error, _PassingError):
                return False
            if error.after is None:
                return True
            left = deadline - asyncio.get_running_loop().time()
            return error.after if error.after < left else False

        async for attempt in stamina.retry_context(
            on=again,
            attempts=self._limits.attempts,
            timeout=self._limits.budget_seconds,
            wait_initial=_FIRST_WAIT,
            wait_max=_LONGEST_WAIT,
            wait_jitter=_JITTER,
        ):
            with attempt:
                return await self._guarded(request)
        raise AssertionError("an attempt either returns or raises")

    async def _guarded(self, request: Request) -> Answer:
        """Ask, unless the breaker is open; half-open, one attempt at a time finds out."""
        state = self._breaker.current_state
        if state == pybreaker.STATE_OPEN or (state == pybreaker.STATE_HALF_OPEN and self._trying):
            raise StoreUnavailableError(
                f"The store {self._name} failed {self._limits.failures} times in a row; it is left "
                f"alone for {self._limits.pause_seconds:g} seconds."
            )
        self._trying = state == pybreaker.STATE_HALF_OPEN
        try:
            with self._breaker.calling():
                return await self._attempt(request)
        finally:
            if state == pybreaker.STATE_HALF_OPEN:
                self._trying = False

    async def _attempt(self, request: Request) -> Answer:
        headers = dict(self._signer.headers(request.method, request.url, request.body))
        if request.content_type is not None:
            headers["Content-Type"] = request.content_type
        failure = "TimeoutError"
        try:
            async with (
                asyncio.timeout(self._limits.seconds),
                self._http.stream(
                    request.method, request.url, content=request.body or None, headers=headers
                ) as response,
            ):
                return await self._read(request, response)
        except ConnectError as error:
            kind = _PassingError if error.retry else StoreUnavailableError
            raise kind(f"The store {self._name}: {error}") from None
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError) as error:
            failure = type(error).__name__  # a TimeoutError is an OSError
        raise _PassingError(f"The store {self._name} did not answer ({failure}).")

    async def _read(self, request: Request, response: httpx2.Response) -> Answer:
        status = response.status_code
        if status in request.missing:
            await self._json(response)
            return Answer(status)
        if status in request.statuses:
            # Short bodies are read, so that the connection can be used again.
            await self._body(response)
            return Answer(status)
        if status == 429 or status >= 500:
            raise _PassingError(
                f"The store {self._name} answered HTTP {status}.",
                _seconds(response.headers.get("retry-after", "")),
            )
        if status in (401, 403):
            raise StoreUnavailableError(
                f"The store {self._name} refused what we showed to sign in (HTTP {status})."
            )
        if 300 <= status < 400:
            raise StoreUnavailableError(
                f"The store {self._name} redirects (HTTP {status}), which is not followed."
            )
        if status != 200:
            raise StoreUnavailableError(f"The store {self._name} answered HTTP {status}.")
        return Answer(status, await self._json(response))

    async def _json(self, response: httpx2.Response) -> Any:
        if not _JSON.fullmatch(response.headers.get("content-type", "")):
            raise _PassingError(
                f"The store {self._name} answered something that is not JSON "
                f"(HTTP {response.status_code})."
            )
        return self._parse(await self._body(response))

    async def _body(self, response: httpx2.Response) -> bytes:
        most, body = self._limits.max_bytes, bytearray()
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise _PassingError(f"The store {self._name} compresses, although it was not asked to.")
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > most:
                raise StoreUnavailableError(
                    f"The store {self._name} answered more than {most} bytes (limits.max_bytes)."
                )
        return bytes(body)

    def _parse(self, body: bytes) -> Any:
        try:
            return json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_refuse)
        except (ValueError, RecursionError):
            pass  # its text would show the body
        raise _PassingError(f"The store {self._name} answered something that is not JSON.")


class _Pause(pybreaker.CircuitBreakerListener):
    """Says when the breaker opens and closes, and ends its pause by a clock that does not jump."""

    def __init__(self, name: str, seconds: float) -> None:
        self._name = name
        self._seconds = seconds

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        log.warning("store %s: the circuit breaker is %s", self._name, new_state.name)
        was_open = old_state is not None and old_state.name == pybreaker.STATE_OPEN
        if new_state.name == pybreaker.STATE_OPEN and not was_open:
            asyncio.get_running_loop().call_later(self._seconds, _try_again, cb)


def _try_again(breaker: pybreaker.CircuitBreaker) -> None:
    if breaker.current_state == pybreaker.STATE_OPEN:
        breaker.half_open()


def _is_ours(error: BaseException) -> bool:
    """A fault of ours says nothing of the service; being cut off by the budget does."""
    return isinstance(error, Exception) and not isinstance(error, StoreUnavailableError)


def _seconds(retry_after: str) -> float | None:
    """Retry-After in seconds; a date is ignored, whose clock is it?"""
    return float(retry_after) if re.fullmatch(r"[0-9]{1,6}", retry_after) else None


def _once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


def _refuse(_constant: str) -> Any:
    raise ValueError("NaN and Infinity are no JSON")
