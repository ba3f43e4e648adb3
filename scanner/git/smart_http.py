"""Fetching over smart HTTP, protocol version 2: one POST, one pack, into an anonymous file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import BinaryIO

import httpx2

from scanner.errors import (
    FetchError,
    FetchRefusedError,
    FetchTooLargeError,
    FetchUnavailableError,
    ObjectNotFoundError,
)
from scanner.git.guard import ConnectGuard
from scanner.git.protocol import PacketReader, fetch_request, refs_request
from scanner.model import FetchPlan
from scanner.ports import Pack

_HEADERS = {
    "Git-Protocol": "version=2",
    "Content-Type": "application/x-git-upload-pack-request",
    "Accept": "application/x-git-upload-pack-result",
    "User-Agent": "patrol",
}
_MOST_REFS_BYTES = 64 << 20
_IDLE_SECONDS = 30.0
_PACK_DATA, _PROGRESS = 1, 2


class SmartHttpFetcher:
    """Reads public repositories, anonymously. Satisfies `ports.Fetcher`.

    `max_bytes` bounds a pack, `timeout` (seconds) a whole request, however slowly bytes drip.
    """

    def __init__(
        self, guard: ConnectGuard, *, max_bytes: int = 512 << 20, timeout: float = 120.0
    ) -> None:
        self._guard = guard
        self._max_bytes = max_bytes
        self._timeout = timeout

    @asynccontextmanager
    async def fetch(self, plan: FetchPlan) -> AsyncIterator[Pack]:
        """Fetch the plan's objects; the pack is gone after the block."""
        with _anonymous_file() as file:
            size = await self._fetch_into(file, plan)
            file.seek(0)
            yield Pack(file, size)

    async def _fetch_into(self, file: BinaryIO, plan: FetchPlan) -> int:
        reader, size, started = PacketReader(), 0, False
        async for chunk in self._post(plan.url, fetch_request(plan.wants, plan.haves)):
            for packet in reader.feed(chunk):
                if packet is None:
                    continue
                if not started:
                    _refuse_error(packet)
                    started = packet.rstrip(b"\n") == b"packfile"
                elif packet[0] == _PACK_DATA:
                    size += len(packet) - 1
                    if size > self._max_bytes:
                        raise FetchTooLargeError(
                            f"The pack is larger than {self._max_bytes} bytes "
                            "(PATROL_FETCH_MAX_BYTES)."
                        )
                    file.write(packet[1:])
                elif packet[0] != _PROGRESS:
                    raise FetchUnavailableError("The server gave up while sending the pack.")
        if not started:
            raise FetchUnavailableError("The server sent no pack.")
        file.flush()
        return size

    async def list_refs(self, url: str) -> Mapping[str, str]:
        """Return ref name -> object id of HEAD, every branch and every tag."""
        reader, refs, total = PacketReader(), dict[str, str](), 0
        async for chunk in self._post(url, refs_request()):
            total += len(chunk)
            if total > _MOST_REFS_BYTES:
                raise FetchTooLargeError("The repository has too many refs.")
            for packet in reader.feed(chunk):
                if packet is None:
                    continue
                _refuse_error(packet)
                object_id, _, name = packet.decode("utf-8", "surrogateescape").partition(" ")
                if object_id != "unborn":
                    refs[name.rstrip("\n")] = object_id
        return refs

    async def _post(self, url: str, body: bytes) -> AsyncIterator[bytes]:
        self._guard.check_url(url)
        limits = httpx2.Timeout(_IDLE_SECONDS)
        try:
            async with (
                asyncio.timeout(self._timeout),
                httpx2.AsyncClient(
                    transport=self._guard.transport(), timeout=limits, trust_env=False
                ) as client,
                client.stream(
                    "POST", f"{url}/git-upload-pack", content=body, headers=_HEADERS
                ) as response,
            ):
                _check_status(response.status_code)
                async for chunk in response.aiter_bytes():
                    yield chunk
        except FetchError:
            raise
        except TimeoutError:
            raise FetchUnavailableError(
                f"The fetch took longer than {self._timeout:g} seconds."
            ) from None
        except httpx2.HTTPError as error:
            raise FetchUnavailableError(
                f"The repository's host did not answer ({type(error).__name__})."
            ) from None


def _check_status(status: int) -> None:
    if status in (401, 403, 404, 410):
        raise FetchRefusedError(f"The repository does not exist or is not public (HTTP {status}).")
    if 300 <= status < 400:
        raise FetchRefusedError(
            f"The repository moved (HTTP {status}); redirects are not followed."
        )
    if status != 200:
        raise FetchUnavailableError(f"The repository's host answered HTTP {status}.")


def _refuse_error(packet: bytes) -> None:
    if packet.startswith(b"ERR "):
        if b"not our ref" in packet or b"not valid" in packet:
            raise ObjectNotFoundError("The repository does not serve the pushed commit.")
        raise FetchRefusedError("The server refused the request.")


def _anonymous_file() -> BinaryIO:
    """A file without a name: packs hold raw tokens, and a killed process must leave none."""
    return os.fdopen(os.memfd_create("pack", os.MFD_CLOEXEC), "w+b")
