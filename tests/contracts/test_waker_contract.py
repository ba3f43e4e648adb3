"""What every `Waker` owes: a wake carries a task's name alone, and a broker that is away costs
nobody more than a moment."""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from celery import Celery
from fakeredis import TcpFakeServer

from scanner.ports import Waker
from scanner.settings import load_settings
from scanner.worker import QUEUE, RESPOND, SCAN, CeleryWaker, make_app

MOST_SECONDS = 3.0


class RecordingWaker:
    """Keeps what it was asked for. Satisfies `ports.Waker`."""

    def __init__(self) -> None:
        self.woken: queue.Queue[str] = queue.Queue()

    def wake(self, task: str) -> None:
        self.woken.put(task)


class Bench(Protocol):
    @property
    def waker(self) -> Waker: ...

    def take(self, count: int) -> list[str]:
        """Return the tasks of so many wakes, oldest first, as workers would get them; there must
        not be more."""
        ...


class RecordingBench:
    def __init__(self) -> None:
        self.waker = RecordingWaker()

    def take(self, count: int) -> list[str]:
        taken = [self.waker.woken.get(timeout=5) for _ in range(count)]
        assert self.waker.woken.empty()
        return taken


class CeleryBench:
    """A waker, and a worker's end of its broker."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        given = {} if url is None else {"broker_url": url}
        self.app: Celery = make_app(load_settings({"data_dir": folder, **given}))
        self.waker = CeleryWaker(self.app)

    def messages(self, count: int) -> list[tuple[Mapping[str, Any], Any]]:
        """Take so many messages; returns the headers and the decoded body of each."""
        with self.app.connection_for_read() as connection:
            waiting = connection.SimpleQueue(QUEUE)
            try:
                taken = [waiting.get(timeout=5) for _ in range(count)]
                for message in taken:
                    message.ack()
                with pytest.raises(waiting.Empty):
                    waiting.get_nowait()
            finally:
                waiting.close()
        return [(message.headers, message.decode()) for message in taken]

    def take(self, count: int) -> list[str]:
        return [headers["task"] for headers, _ in self.messages(count)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def redis_at(port: int = 0) -> Iterator[str]:
    """Redis's protocol on loopback; yields the broker's URL."""
    server = TcpFakeServer(("127.0.0.1", port))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def embedded(tmp_path: Path) -> CeleryBench:
    return CeleryBench(tmp_path)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[CeleryBench]:
    with redis_at() as url:
        yield CeleryBench(tmp_path, url)


@pytest.fixture
def recording() -> RecordingBench:
    return RecordingBench()


@pytest.fixture(params=["embedded", "redis", "recording"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["embedded", "redis"])
def celery(request: pytest.FixtureRequest) -> CeleryBench:
    return request.getfixturevalue(request.param)


def test_a_wake_reaches_a_worker(bench: Bench) -> None:
    bench.waker.wake(SCAN)
    assert bench.take(1) == [SCAN]
    bench.waker.wake(RESPOND)
    bench.waker.wake(SCAN)
    assert bench.take(2) == [RESPOND, SCAN]


def test_a_wake_carries_no_more_than_its_name(celery: CeleryBench) -> None:
    for task in (SCAN, RESPOND):
        celery.waker.wake(task)
    taken = celery.messages(2)
    assert [headers["task"] for headers, _ in taken] == [SCAN, RESPOND]
    for headers, (arguments, options, embed) in taken:
        assert (arguments, options) == ([], {})
        assert not any(embed.values())
        assert (headers["argsrepr"], headers["kwargsrepr"]) == ("()", "{}")
        assert headers["expires"] is not None  # else they pile up while no worker runs


@pytest.mark.parametrize("name", ["embedded", "recording"])
def test_many_threads_wake_at_once(request: pytest.FixtureRequest, name: str) -> None:
    bench: Bench = request.getfixturevalue(name)
    threads = [threading.Thread(target=bench.waker.wake, args=[SCAN]) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bench.take(30) == [SCAN] * 30


def seconds_of(waker: Waker, times: int = 1) -> float:
    began = time.monotonic()
    for _ in range(times):
        waker.wake(SCAN)
    return time.monotonic() - began


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_away_is_not_waited_for(
    tmp_path: Path, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{scheme}://user:hush-hush@127.0.0.1:{free_port()}//"
    waker = CeleryBench(tmp_path, url).waker
    with caplog.at_level(logging.WARNING, "scanner"):
        assert seconds_of(waker, 3) < MOST_SECONDS
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"the broker did not take a wake for {SCAN}"
    ] * 3
    assert "hush" not in caplog.text


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_says_nothing_is_not_waited_for(tmp_path: Path, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}//"
        assert seconds_of(CeleryBench(tmp_path, url).waker) < MOST_SECONDS


def test_a_host_that_is_not_known_is_no_error(tmp_path: Path) -> None:
    assert seconds_of(CeleryBench(tmp_path, "redis://broker.invalid/0").waker) < MOST_SECONDS


@pytest.mark.parametrize(
    "answer",
    [
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_a_broker_that_refuses_is_no_error(tmp_path: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed: the test is over
                    return
                with connection:
                    while connection.recv(4_096):
                        connection.sendall(answer)

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        assert seconds_of(CeleryBench(tmp_path, url).waker) < MOST_SECONDS
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_disk_that_is_gone_is_no_error(tmp_path: Path, embedded: CeleryBench) -> None:
    embedded.waker.wake(SCAN)
    assert embedded.take(1) == [SCAN]
    folder = tmp_path / "broker" / "queue"
    folder.rmdir()
    embedded.waker.wake(SCAN)
    folder.mkdir()
    embedded.waker.wake(RESPOND)
    assert embedded.take(1) == [RESPOND]


def test_a_broker_that_comes_and_goes(tmp_path: Path) -> None:
    port = free_port()
    bench = CeleryBench(tmp_path, f"redis://127.0.0.1:{port}/0")
    bench.waker.wake(SCAN)
    with redis_at(port):
        bench.waker.wake(SCAN)
        assert bench.take(1) == [SCAN]
    assert seconds_of(bench.waker, 2) < MOST_SECONDS
    with redis_at(port):
        bench.waker.wake(SCAN)
        bench.waker.wake(RESPOND)
        assert bench.take(2) == [SCAN, RESPOND]
