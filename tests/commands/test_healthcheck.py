"""patrol healthcheck: it answers for the processes of its own container, whatever others do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from scanner.db import heartbeats
from tests.house import until
from tests.servers.guardian import family

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(patrol: Any) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a service of this installation; what is left of them ends with the test."""
    with ExitStack() as running:

        def run(*words: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-m", "scanner.cli", *words],
                env={**os.environ, "PYTHONPATH": str(ROOT), "PATROL_SUPERVISED": str(os.getpid())},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            running.callback(process.wait, 60)
            running.callback(process.terminate)
            return process

        yield run


@pytest.mark.parametrize("role", ["worker", "beat"])
def test_another_containers_reports_are_no_sign_of_ours(patrol: Any, role: str) -> None:
    services = patrol.services()
    with services.database.begin() as connection:
        for name in (heartbeats.BEAT, heartbeats.ROUND, "worker:respond", "worker:deliver"):
            heartbeats.report(connection, name)
    services.engine.dispose()
    done = patrol("healthcheck", role)
    assert (done.code, done.out) == (1, "")
    assert f"No {role} was started here" in done.err


def test_the_worker_here(patrol: Any, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    worker = start("worker", "--queues", "deliver")
    signs = patrol.data / "alive" / os.uname().nodename

    def reported() -> bool:
        """The process itself has said that it is well: the parent expects it only."""
        sign = signs / "worker.deliver"
        return sign.exists() and sign.read_text() not in ("", str(worker.pid))

    until("its report", reported)
    assert patrol("healthcheck", "worker").code == 0
    # It does beat's round by and by; there is no beat here for all that.
    assert patrol("healthcheck", "beat").code == 1
    _, member = family(worker.pid)
    os.kill(worker.pid, signal.SIGSTOP)  # who would start another one
    os.kill(member, signal.SIGKILL)
    until("its end", lambda: patrol("healthcheck", "worker").code == 1)
    os.kill(worker.pid, signal.SIGCONT)
    until("another one", lambda: patrol("healthcheck", "worker").code == 0)
    worker.kill()
    until("the end of all", lambda: patrol("healthcheck", "worker").code == 1)


def test_beat_here(patrol: Any, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    beat = start("beat")
    services = patrol.services()

    def names() -> set[str]:
        with services.database.connect() as connection:
            return set(heartbeats.ages(connection, 0))

    until("its round", lambda: {heartbeats.BEAT, heartbeats.ROUND} <= names())
    services.engine.dispose()
    assert patrol("healthcheck", "beat").code == 0
    beat.kill()
    beat.wait(60)
    done = patrol("healthcheck", "beat")
    assert (done.code, done.err) == (1, "beat round has ended.\n")
