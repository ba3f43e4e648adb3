"""Fetching from the real `git http-backend`, and from servers that misbehave."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scanner.errors import (
    FetchError,
    FetchRefusedError,
    FetchTooLargeError,
    FetchUnavailableError,
    NotServedError,
    ObjectNotFoundError,
)
from scanner.git.pack import Bounds, PackReader
from scanner.git.smart_http import SmartHttpFetcher
from scanner.guard import ConnectGuard
from scanner.model import FetchPlan

Fetch = Callable[..., bytes]
_RESULT = b"Content-Type: application/x-git-upload-pack-result\r\n"


def ids(pack: bytes, hash_size: int = 20) -> set[str]:
    return {item.id for item in PackReader(pack, Bounds(), hash_size).objects()}


def test_a_pack_over_the_bound_is_refused(repository, server, fetch: Fetch) -> None:
    head = repository.commit({"big.bin": os.urandom(50_000)})
    repository.push()
    small = SmartHttpFetcher(ConnectGuard([server.address]), max_bytes=20_000)
    with pytest.raises(FetchTooLargeError, match="20000"):
        fetch(repository.url, head, by=small)


def test_a_large_pack_leaves_memory_and_has_no_name(repository, server) -> None:
    head = repository.commit({"big.bin": os.urandom(200_000)})
    repository.push()
    spilling = SmartHttpFetcher(ConnectGuard([server.address]), memory_bytes=10_000)

    async def run() -> None:
        async with spilling.fetch(FetchPlan(repository.url, (head,))) as pack:
            link = Path(f"/proc/self/fd/{pack.file.fileno()}")
            target = str(link.readlink())  # noqa: ASYNC240 (a link of this process)
            assert target.endswith("(deleted)")
            assert "memfd" not in target
            assert head in ids(pack.file.read())
        assert pack.file.closed

    asyncio.run(run())


def test_the_guard_stands_before_the_first_byte(repository, fetch: Fetch) -> None:
    head = repository.commit({"a.txt": "one"})
    repository.push()
    with pytest.raises(FetchRefusedError, match="https"):
        fetch(repository.url, head, by=SmartHttpFetcher(ConnectGuard()))
    lenient = SmartHttpFetcher(ConnectGuard(https_only=False))
    with pytest.raises(FetchRefusedError, match="not public"):
        fetch(repository.url, head, by=lenient)


def test_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    fetcher = SmartHttpFetcher(ConnectGuard([address]))
    with pytest.raises(FetchUnavailableError, match="did not answer"):
        asyncio.run(fetcher.list_refs(f"http://{address}/a/b.git"))


def receive(connection: socket.socket) -> bytes:
    request = connection.recv(65_536)
    head, _, body = request.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    left = int(found[1]) - len(body) if found else 0
    while left > 0:
        request += connection.recv(left)
        left = len(head) + 4 + int(found[1]) - len(request) if found else 0
    return request


@contextmanager
def answering(
    *answers: bytes, drip: float = 0.0, requests: list[bytes] | None = None
) -> Iterator[str]:
    """A server that gives these raw answers in turn, a byte at a time if `drip` seconds are set."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                request = receive(connection)
                if requests is not None:
                    requests.append(request)
                if not drip:
                    connection.sendall(answer)
                    continue
                try:
                    for byte in answer:
                        connection.sendall(bytes([byte]))
                        if stop.wait(drip):
                            return
                except OSError:  # the client gave up, as it should
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        listener.close()
        thread.join(5)


def answer(body: bytes, head: bytes = _RESULT) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def packet(payload: bytes) -> bytes:
    return b"%04x" % (len(payload) + 4) + payload


def attempt(address: str, **settings: float) -> bytes:
    fetcher = SmartHttpFetcher(ConnectGuard([address]), **settings)  # type: ignore[arg-type]

    async def run() -> bytes:
        plan = FetchPlan(f"http://{address}/a/b.git", ("1" * 40,))
        async with fetcher.fetch(plan) as pack:
            return pack.file.read()

    return asyncio.run(run())


def test_a_server_that_drips_meets_the_total_time() -> None:
    body = answer(packet(b"packfile\n") + packet(b"\1" + b"x" * 1000) * 50)
    with answering(body, drip=0.05) as address:
        began = time.monotonic()
        with pytest.raises(FetchUnavailableError, match=r"longer than 0\.5 seconds"):
            attempt(address, timeout=0.5)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (b"401 Unauthorized", NotServedError),
        (b"403 Forbidden", NotServedError),
        (b"403 Slow down\r\nRetry-After: 60", FetchUnavailableError),
        (b"403 Slow down\r\nX-RateLimit-Remaining: 0", FetchUnavailableError),
        (b"404 Not Found", NotServedError),
        (b"429 Too Many Requests", FetchUnavailableError),
        (b"500 Oops", FetchUnavailableError),
        (b"503 Busy", FetchUnavailableError),
    ],
)
def test_statuses(status: bytes, error: type[FetchError]) -> None:
    body = b"HTTP/1.1 " + status + b"\r\nContent-Length: 9\r\n\r\nhush hush"
    with answering(body) as address, pytest.raises(error) as caught:
        attempt(address)
    assert type(caught.value) is error
    assert "hush" not in str(caught.value)


def test_a_redirect_elsewhere_is_refused() -> None:
    body = (
        b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.2:9/a/b.git/git-upload-pack\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    with answering(body) as address, pytest.raises(FetchRefusedError, match="another host"):
        attempt(address)


def test_a_redirect_within_the_host_is_followed() -> None:
    moved = b"HTTP/1.1 301 Moved\r\nLocation: /c/d.git/git-upload-pack\r\n"
    moved += b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    whole = packet(b"packfile\n") + packet(b"\1PACK") + b"0000"
    seen: list[bytes] = []
    with answering(moved, answer(whole), requests=seen) as address:
        assert attempt(address) == b"PACK"
    assert seen[1].startswith(b"POST /c/d.git/git-upload-pack ")
    assert b"command=fetch" in seen[1]


def test_redirects_end() -> None:
    moved = b"HTTP/1.1 302 Moved\r\nLocation: /a/b.git/git-upload-pack\r\n"
    moved += b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    with answering(*[moved] * 4) as address, pytest.raises(FetchRefusedError, match="without end"):
        attempt(address)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", FetchUnavailableError),
        (b"0000", FetchUnavailableError),
        (b"zzzzhush", FetchUnavailableError),
        (b"+004hush", FetchUnavailableError),
        (packet(b"packfile\n") + packet(b"\1PACK"), FetchUnavailableError),  # no end
        (packet(b"packfile\n") + packet(b"\1PACK") + b"00", FetchUnavailableError),
        (packet(b"packfile\n") + packet(b"\3hush") + b"0000", FetchUnavailableError),
        (packet(b"packfile\n") + packet(b"\7hush") + b"0000", FetchUnavailableError),
        (packet(b"packfile\n") + packet(b"") + b"0000", FetchUnavailableError),
        (packet(b"ERR hush"), FetchRefusedError),
        (packet(b"ERR upload-pack: not our ref hush"), ObjectNotFoundError),
    ],
)
def test_answers_that_are_no_pack(body: bytes, error: type[FetchError]) -> None:
    with answering(answer(body)) as address, pytest.raises(error) as caught:
        attempt(address)
    assert type(caught.value) is error
    assert "hush" not in str(caught.value)


def test_an_answer_that_is_cut_off_or_not_gits() -> None:
    whole = answer(packet(b"packfile\n") + packet(b"\1PACK") + b"0000")
    with answering(whole[:-6]) as address, pytest.raises(FetchUnavailableError):
        attempt(address)
    page = answer(b"<html>", b"Content-Type: text/html\r\n")
    with answering(page) as address, pytest.raises(FetchUnavailableError, match="protocol"):
        attempt(address)
    packed = answer(b"\x1f\x8b", _RESULT + b"Content-Encoding: gzip\r\n")
    with answering(packed) as address, pytest.raises(FetchUnavailableError, match="protocol"):
        attempt(address)


def test_one_post_without_credentials_or_thin_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    seen: list[bytes] = []
    whole = answer(packet(b"packfile\n") + packet(b"\1PACK") + b"0000")
    with answering(whole, requests=seen) as address:
        assert attempt(address) == b"PACK"
    (request,) = seen
    assert re.search(rb"(?i)^git-protocol: version=2\r$", request, re.MULTILINE)
    assert b"ofs-delta" in request
    assert b"thin-pack" not in request
    assert b"uthorization" not in request


@pytest.mark.parametrize("wants", [(), ("xyz",), ("1" * 40 + "\n",), ("1" * 40, "2" * 64)])
def test_ids_are_checked_before_anything_is_sent(wants: tuple[str, ...]) -> None:
    async def run() -> None:
        plan = FetchPlan("https://example.invalid/a/b.git", wants)
        async with SmartHttpFetcher(ConnectGuard()).fetch(plan):
            pytest.fail("fetched")

    with pytest.raises(FetchRefusedError, match="object id"):
        asyncio.run(run())
