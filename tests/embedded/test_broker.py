"""The embedded broker between real processes: no message is lost, taken twice, or read half."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection
from kombu.simple import SimpleQueue

from scanner.settings import load_settings
from scanner.worker import SCAN, CeleryWaker, make_app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def folder(data_dir: Path) -> Path:
    """Where the messages lie."""
    make_app(load_settings({"data_dir": data_dir}))
    return data_dir / "broker" / "queue"


@contextmanager
def opened(data_dir: Path, name: str = SCAN) -> Iterator[SimpleQueue]:
    connection: Connection
    with make_app(load_settings({"data_dir": data_dir})).connection_for_write() as connection:
        queue = connection.SimpleQueue(name)
        yield queue
        queue.close()


@pytest.fixture
def queue(data_dir: Path) -> Iterator[SimpleQueue]:
    with opened(data_dir) as one:
        yield one


def drain(queue: SimpleQueue) -> list[Any]:
    """All there is now; the queue is asked once more than it holds."""
    taken = []
    while True:
        try:
            message = queue.get_nowait()
        except Empty:
            return taken
        message.ack()
        taken.append(message.decode())


@pytest.fixture
def start(data_dir: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def run(role: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("broker_process.py"), data_dir, role,
             *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}, cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out.split()


def test_two_producers_and_two_consumers_lose_nothing(
    start: Callable[..., subprocess.Popen[str]], queue: SimpleQueue, folder: Path
) -> None:
    consumers = [start("consume") for _ in range(2)]
    producers = [start("produce", name, "250") for name in ("a", "b")]
    for producer in producers:
        finish(producer)
    for _ in consumers:
        queue.put("stop")
    taken = [name for consumer in consumers for name in finish(consumer)]
    assert len(taken) == 500
    assert set(taken) == {f"{name}-{number}" for name in ("a", "b") for number in range(250)}
    assert [path for part in folder.parent.iterdir() for path in part.iterdir()] == []


def test_a_consumer_that_is_killed_takes_at_most_one_message_along(
    start: Callable[..., subprocess.Popen[str]], queue: SimpleQueue
) -> None:
    finish(start("produce", "a", "300"))
    victim = start("consume")
    assert victim.stdout is not None
    taken = [victim.stdout.readline().strip() for _ in range(20)]
    victim.kill()
    out, err = victim.communicate(timeout=60)
    assert err == ""
    taken += out.split()
    successor = start("consume")
    queue.put("stop")
    taken += finish(successor)
    assert len(taken) == len(set(taken))
    assert len(taken) >= 299
    assert set(taken) <= {f"a-{number}" for number in range(300)}


def test_messages_come_in_the_order_they_were_sent(queue: SimpleQueue) -> None:
    for number in range(50):
        queue.put({"n": number})
    assert [body["n"] for body in drain(queue)] == list(range(50))


def test_a_message_that_is_still_being_written_is_not_read(
    queue: SimpleQueue, folder: Path
) -> None:
    queue.put("whole")
    (whole,) = folder.glob("*.msg")
    for name in (f".{whole.name}.writing", f"{whole.name}.writing", f".0{whole.name}"):
        (folder / name).write_bytes(b"half")
    assert drain(queue) == ["whole"]
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 100, b"\xff\xfe", b"{}x"])
def test_a_damaged_message_is_dropped_and_the_next_one_read(
    queue: SimpleQueue, folder: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / f"{0:020d}_x.{SCAN}.msg").write_bytes(damage)
    queue.put("whole")
    assert drain(queue) == ["whole"]
    assert list(folder.iterdir()) == []
    assert "damaged message" in caplog.text


def test_a_queue_whose_name_ends_like_another_ones_keeps_its_messages(
    data_dir: Path, queue: SimpleQueue
) -> None:
    with opened(data_dir, f"other.{SCAN}") as other:
        other.put("theirs")
        queue.put("ours")
        assert drain(queue) == ["ours"]
        assert drain(other) == ["theirs"]


def test_what_a_killed_process_left_half_written_stops_nobody(data_dir: Path, folder: Path) -> None:
    # kombu's own transport keeps its bindings in such a file, and dies of one that is empty.
    (folder.parent / "control" / f"{SCAN}.exchange").touch()
    with opened(data_dir) as queue:
        queue.put("on")
        assert drain(queue) == ["on"]
    (folder.parent / "control" / f"{SCAN}.exchange").unlink()
    assert list((folder.parent / "control").iterdir()) == []


def test_a_wake_on_disk_holds_its_name_and_no_argument(data_dir: Path, folder: Path) -> None:
    CeleryWaker(make_app(load_settings({"data_dir": data_dir}))).wake(SCAN)
    (file,) = folder.iterdir()
    message = json.loads(file.read_bytes())
    assert message["headers"]["task"] == SCAN
    assert json.loads(base64.b64decode(message["body"]))[:2] == [[], {}]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_without_a_worker_wakes_do_not_fill_the_disk(
    queue: SimpleQueue, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1_010):
        queue.put(number)
    assert len(list(folder.iterdir())) == 1_000
    assert caplog.text.count("no more are added") == 1
    assert drain(queue) == list(range(1_000))


_WORKER = """
import os, sys
from pathlib import Path
from scanner.settings import load_settings
from scanner.worker import make_app

app = make_app(load_settings({"data_dir": Path(sys.argv[1])}))

@app.task(name="late")
def late():
    os.write(1, b"ran late\\n")  # Celery takes what is printed for its log

@app.task(name="live")
def live():
    os.write(1, b"ran live\\n")

app.conf.task_routes = {}
app.worker_main(["worker", "--pool=solo", "--queues=patrol.webhooks",
                 "--without-gossip", "--without-mingle", "--without-heartbeat"])
"""


def test_a_worker_drops_a_wake_that_has_expired(data_dir: Path, folder: Path) -> None:
    app = make_app(load_settings({"data_dir": data_dir}))
    now = datetime.now(UTC)
    app.send_task("late", queue=SCAN, expires=now - timedelta(seconds=1))
    app.send_task("live", queue=SCAN, expires=now + timedelta(hours=1))
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, data_dir],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    ran: list[str] = []
    try:
        assert worker.stdout is not None
        for line in worker.stdout:
            if line.startswith("ran"):
                ran.append(line.strip())
                worker.terminate()  # messages come in order: the late one was taken before
    finally:
        worker.kill()
        worker.communicate()
    assert ran == ["ran live"]
    assert list(folder.iterdir()) == []
