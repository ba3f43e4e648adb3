"""Fetching over smart HTTP, protocol version 2: one POST, one pack, into an anonymous file."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import BinaryIO, Self, cast
from urllib.parse import urljoin, urlsplit

import httpx2

from scanner.errors import (
    ConnectFailedError,
    ConnectForbiddenError,
    FetchRefusedError,
    FetchTooLargeError,
    FetchTooSlowError,
    FetchUnavailableError,
    NotServedError,
)
from scanner.git.protocol import PackAnswer, RefsAnswer, fetch_request, refs_request
from scanner.guard import ConnectGuard
from scanner.model import FetchPlan
from scanner.ports import Pack

_SERVICE = "/git-upload-pack"
_RESULT = "application/x-git-upload-pack-result"
_HEADERS = {
    "Git-Protocol": "version=2",
    "Content-Type": "application/x-git-upload-pack-request",
    "Accept": _RESULT,
    "Accept-Encoding": "identity",  # a pack is compressed already; a compressed bomb is refused
    "User-Agent": "patrol",
}
_IDLE_SECONDS = 30.0
_MOST_REFS = 500_000
_MOST_REFS_BYTES = 64 << 20
_MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 307, 308})
_REFUSED = frozenset({401, 403, 404, 410, 451})


class SmartHttpFetcher:
    """Reads public repositories, anonymously. Satisfies `ports.Fetcher`.

    `max_bytes` bounds a pack, `timeout` (seconds) a whole request, however slowly bytes drip; a
    pack larger than `memory_bytes` moves from memory to an unnamed file on disk.
    """

    def __init__(
        self,
        guard: ConnectGuard,
        *,
        max_bytes: int = 512 << 20,
        timeout: float = 120.0,
        memory_bytes: int = 32 << 20,
    ) -> None:
        self._guard = guard
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._memory_bytes = memory_bytes

    @asynccontextmanager
    async def fetch(self, plan: FetchPlan) -> AsyncIterator[Pack]:
        """Fetch the plan's objects; the pack is gone after the block.

        A pack cut off by a bound is of no use, so every bound is an error: `FetchTooLargeError` for
        bytes, `FetchTooSlowError` for time.
        """
        body = fetch_request(plan.wants, plan.haves, plan.depth)
        with _AnonymousFile(self._max_bytes, self._memory_bytes) as spool:
            answer = PackAnswer(spool.write)
            await self._post(plan.url, body, answer.feed)
            answer.finish()
            spool.file.seek(0)
            yield Pack(spool.file, spool.size)

    async def list_refs(self, url: str) -> Mapping[str, str]:
        """Return ref name -> object id of HEAD, every branch and every tag."""
        for object_format in ("sha1", "sha256"):
            refs = RefsAnswer(_MOST_REFS, _MOST_REFS_BYTES)
            await self._post(url, refs_request(object_format), refs.feed)
            # git hangs up without a word when the format is not the repository's.
            if not refs.is_silent:
                return refs.finish()
        raise FetchUnavailableError("The server sent no refs.")

    async def _post(self, url: str, body: bytes, feed: Callable[[bytes], None]) -> None:
        target = url.rstrip("/") + _SERVICE
        try:
            async with (
                asyncio.timeout(self._timeout),
                httpx2.AsyncClient(
                    transport=self._guard.transport(),
                    timeout=httpx2.Timeout(min(_IDLE_SECONDS, self._timeout)),
                    trust_env=False,
                ) as client,
            ):
                for _ in range(_MOST_REDIRECTS + 1):
                    self._guard.check_url(target)
                    request = client.stream("POST", target, content=body, headers=_HEADERS)
                    async with request as response:
                        if response.status_code not in _REDIRECTS:
                            _check(response)
                            async for chunk in response.aiter_raw():
                                feed(chunk)
                            return
                        target = _same_host(target, response.headers.get("location", ""))
                raise FetchRefusedError("The repository's host redirects without end.")
        except TimeoutError:
            raise FetchTooSlowError(
                f"The fetch took longer than {self._timeout:g} seconds."
            ) from None
        except ConnectForbiddenError as error:
            raise FetchRefusedError(str(error)) from None
        except ConnectFailedError as error:
            raise FetchUnavailableError(str(error)) from None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise FetchUnavailableError(
                f"The repository's host did not answer ({type(error).__name__})."
            ) from None
        except httpx2.InvalidURL:
            raise FetchRefusedError("The repository's address is not a URL.") from None


def _check(response: httpx2.Response) -> None:
    status = response.status_code
    if status == 403 and _is_rate_limit(response.headers):
        raise FetchUnavailableError("The repository's host limits how often it is asked.")
    if status in _REFUSED:
        raise NotServedError(f"The repository does not exist or is not public (HTTP {status}).")
    if status == 429 or status >= 500:
        raise FetchUnavailableError(f"The repository's host answered HTTP {status}.")
    if status != 200:
        raise FetchRefusedError(f"The repository's host refused the request (HTTP {status}).")
    if response.headers.get("content-type") != _RESULT or "content-encoding" in response.headers:
        raise FetchUnavailableError("The server does not speak git's protocol.")


def _is_rate_limit(headers: httpx2.Headers) -> bool:
    """Hosts say so with 403, too (GitHub's REST API best practices)."""
    return "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"


def _same_host(origin: str, location: str) -> str:
    """Return the redirect's target: a renamed repository moves within its host, never beyond."""
    target = urljoin(origin, location)
    here, there = urlsplit(origin), urlsplit(target)
    if (here.scheme, here.netloc) != (there.scheme, there.netloc) or not location:
        raise FetchRefusedError("The repository moved to another host; that is not followed.")
    if not there.path.endswith(_SERVICE):
        raise FetchRefusedError("The repository moved to something that is not a repository.")
    return target


class _AnonymousFile:
    """A file without a name: packs hold raw tokens, and a killed process must leave none."""

    def __init__(self, most: int, memory: int) -> None:
        self._most = most
        self._memory = memory
        self._on_disk = False
        self.size = 0
        self.file: BinaryIO = os.fdopen(os.memfd_create("pack", os.MFD_CLOEXEC), "w+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._most:
            raise FetchTooLargeError(
                f"The pack is larger than {self._most} bytes (PATROL_FETCH_MAX_BYTES)."
            )
        if self.size > self._memory and not self._on_disk:
            self._spill()
        self.file.write(data)

    def _spill(self) -> None:
        on_disk = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 (closed in __exit__)
        self.file.seek(0)
        shutil.copyfileobj(self.file, on_disk, 1 << 20)
        self.file.close()
        self.file, self._on_disk = on_disk, True
