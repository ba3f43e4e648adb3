"""What every `Waker` owes: a wake carries a task's name alone, and a broker that is away costs
nobody more than a moment."""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
from celery import Celery

from scanner.broker import resolve
from scanner.ports import Waker
from scanner.settings import load_settings
from scanner.worker import QUEUES, RESPOND, SCAN, CeleryWaker, make_app, queue_lengths
from tests.servers.documented import redis_users
from tests.servers.redis import RedisServer

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
        """Return the tasks of so many wakes, sorted, as workers would get them; there must not be
        more."""
        ...


class RecordingBench:
    def __init__(self) -> None:
        self.waker = RecordingWaker()

    def take(self, count: int) -> list[str]:
        taken = [self.waker.woken.get(timeout=5) for _ in range(count)]
        assert self.waker.woken.empty()
        return sorted(taken)


class CeleryBench:
    """A waker, and a worker's end of its broker."""

    def __init__(self, folder: Path, url: str | None = None, **settings: Any) -> None:
        given = {} if url is None else {"broker_url": url}
        self.settings = load_settings({"data_dir": folder, **given, **settings})
        self.app: Celery = make_app(self.settings)
        self.waker = CeleryWaker(self.app)

    def messages(self, count: int) -> list[tuple[Mapping[str, Any], Any]]:
        """Take so many messages; returns the headers and the decoded body of each."""
        taken: list[Any] = []

        def keep(_body: object, message: Any) -> None:
            message.ack()
            taken.append(message)

        with self.app.connection_for_read() as connection:
            queues = [self.app.amqp.queues[name] for name in (RESPOND, SCAN)]
            with connection.Consumer(queues, callbacks=[keep]):
                while len(taken) < count:
                    connection.drain_events(timeout=5)
                with pytest.raises(TimeoutError):
                    connection.drain_events(timeout=0.3)
        return [(message.headers, message.decode()) for message in taken]

    def waiting(self) -> list[str]:
        lengths, _ = queue_lengths(self.app, resolve(self.settings))
        return [name for name, length in lengths.items() for _ in range(length)]

    def take(self, count: int) -> list[str]:
        return sorted(headers["task"] for headers, _ in self.messages(count))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def embedded(tmp_path: Path) -> CeleryBench:
    return CeleryBench(tmp_path)


@pytest.fixture
def redis(tmp_path: Path, redis_server: RedisServer) -> CeleryBench:
    return CeleryBench(tmp_path, redis_server.url())


@pytest.fixture
def guarded_redis(tmp_path: Path, new_redis: Callable[..., RedisServer]) -> Iterator[CeleryBench]:
    """One that speaks TLS, asks for certificates, and knows a user who may do next to nothing."""
    server = new_redis(tls=True, client_certificate=True, users=redis_users("s3cr/et@"))
    made = server.certificates
    assert made is not None
    yield CeleryBench(
        tmp_path,
        server.url("patrol", "s3cr/et@").partition("?")[0],
        redis_ca_file=made.authority,
        redis_cert_file=made.client,
        redis_key_file=made.client_key,
    )
    assert server.refused() == []


@pytest.fixture
def recording() -> RecordingBench:
    return RecordingBench()


BROKERS = ["embedded", "redis", "guarded_redis"]


@pytest.fixture(params=[*BROKERS, "recording"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=BROKERS)
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
    assert sorted(headers["task"] for headers, _ in taken) == [RESPOND, SCAN]
    for headers, (arguments, options, embed) in taken:
        assert (arguments, options) == ([], {})
        assert not any(embed.values())
        assert (headers["argsrepr"], headers["kwargsrepr"]) == ("()", "{}")
        assert headers["expires"] is not None  # else they pile up while no worker runs


def test_many_threads_wake_at_once(bench: Bench) -> None:
    threads = [
        threading.Thread(target=bench.waker.wake, args=[task])
        for task in (SCAN, RESPOND)
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bench.take(10) == [RESPOND] * 5 + [SCAN] * 5


def test_wakes_that_nobody_takes_do_not_pile_up(celery: CeleryBench) -> None:
    for _ in range(50):
        celery.waker.wake(SCAN)
    celery.waker.wake(RESPOND)  # a queue of its own
    assert celery.take(17) == [RESPOND] + [SCAN] * 16
    celery.waker.wake(SCAN)
    assert celery.take(1) == [SCAN]


def test_queues_are_asked_for_what_waits(celery: CeleryBench) -> None:
    for _ in range(3):
        celery.waker.wake(SCAN)
    lengths, seconds = queue_lengths(celery.app, resolve(celery.settings))
    assert lengths == {name: 3 * (name == SCAN) for name in QUEUES}
    assert 0 < seconds < MOST_SECONDS


def test_a_wake_is_not_lost_in_a_redis_that_forgot_everything(
    tmp_path: Path, new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis()
    bench = CeleryBench(tmp_path, server.url())
    bench.waker.wake(SCAN)
    server.flush()
    bench.waker.wake(SCAN)
    assert bench.take(1) == [SCAN]


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


def test_a_broker_that_comes_and_goes(
    tmp_path: Path, new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis()
    server.kill()
    bench = CeleryBench(tmp_path, server.url())
    bench.waker.wake(SCAN)
    server.start()
    bench.waker.wake(SCAN)
    assert bench.take(1) == [SCAN]
    server.kill()
    assert seconds_of(bench.waker, 2) < MOST_SECONDS
    server.start()
    bench.waker.wake(SCAN)
    bench.waker.wake(RESPOND)
    assert bench.take(2) == [RESPOND, SCAN]
    server.stop()
    server.start()
    bench.waker.wake(SCAN)  # over a connection whose other end is gone
    assert bench.take(1) == [SCAN]


def test_a_broker_that_hangs_is_left_alone_for_a_while(
    tmp_path: Path, new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis()
    bench = CeleryBench(tmp_path, server.url())
    bench.waker.wake(SCAN)
    server.pause()
    assert 0.5 < seconds_of(bench.waker) < MOST_SECONDS
    assert seconds_of(bench.waker, 100) < 0.5
    server.resume()
    threading.Event().wait(2.1)
    bench.waker.wake(RESPOND)
    # What the hanging server was sent may have arrived all the same: one wake too many is harmless.
    assert {*bench.take(len(bench.waiting()))} == {SCAN, RESPOND}


def test_a_full_broker_is_no_error(
    tmp_path: Path, new_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = new_redis()
    bench = CeleryBench(tmp_path, server.url())
    bench.waker.wake(RESPOND)
    server.fill()
    assert seconds_of(bench.waker) < MOST_SECONDS
    assert "did not take a wake" in caplog.text
    server.make_room()
    bench.waker.wake(SCAN)
    assert bench.take(2) == [RESPOND, SCAN]
