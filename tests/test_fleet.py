"""Processes that are watched: replaced when they end, killed when they hang, stopped in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO

import pytest

from scanner.fleet import BusyUntil
from tests.servers.guardian import family

ROOT = Path(__file__).parents[1]

# Members say what they do, one line a time, each in one write.
PROGRAM = """
import logging, os, signal, sys, time
from time import monotonic
from scanner.fleet import Fleet

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def steady(busy_until):
    signal.signal(signal.SIGTERM, lambda *_: say("stopped") or os._exit(0))
    say("steady", os.getpid())
    while True:
        signal.pause()

def brief(busy_until):
    say("brief", os.getpid())
    time.sleep(1.2)
    return 0

def failing(busy_until):
    say("failing", round(monotonic(), 1))
    raise RuntimeError("a token")

def hanging(busy_until):
    say("hanging", os.getpid())
    busy_until(monotonic() + 0.5)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)

def idle(busy_until):
    busy_until(monotonic() + 0.1)
    busy_until(0)
    say("idle", os.getpid())
    signal.pause()

def deaf(busy_until):
    signal.signal(signal.SIGTERM, lambda *_: say("told"))
    say("deaf", os.getpid())
    while True:
        signal.pause()

def orphaning(busy_until):
    if os.fork() == 0:
        if os.fork() == 0:
            say("grandchild", os.getpid())
            time.sleep(0.2)
        os._exit(0)
    os.wait()
    say("orphaning", os.getpid())
    signal.pause()

names = sys.argv[1].split(",")
Fleet({name: globals()[name] for name in names}, stop_seconds=0.5).run()
say("gone")
"""


class Running:
    def __init__(self, *members: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, ",".join(members)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def says(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def pid_of(self, name: str) -> int:
        while (line := self.says())[0] != name:
            pass
        return int(line[1])

    def complains(self) -> str:
        stream: IO[str] | None = self.process.stderr
        assert stream is not None
        return stream.readline().strip()

    def ends(self) -> list[str]:
        assert self.process.stdout is not None
        said = self.process.stdout.read().splitlines()
        assert self.process.wait(30) == 0
        return said


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def run(*members: str) -> Running:
        started.append(Running(*members))
        return started[-1]

    yield run
    for running in started:
        if running.process.poll() is None:
            os.killpg(running.process.pid, signal.SIGKILL)
        running.process.communicate()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = monotonic()
    yield
    assert monotonic() - began < seconds


def test_a_moment_is_seen_by_both_sides() -> None:
    moment = BusyUntil()
    assert not moment.is_over
    if (pid := os.fork()) == 0:
        moment(1.0)
        os._exit(0)
    os.waitpid(pid, 0)
    assert moment.is_over
    moment(monotonic() + 60)
    assert not moment.is_over
    moment(0)
    assert not moment.is_over


def test_a_member_that_is_killed_is_replaced(start: Callable[..., Running]) -> None:
    running = start("steady")
    first = running.pid_of("steady")
    with within(10):
        os.kill(first, signal.SIGKILL)
        assert running.complains().startswith("steady ended (signal 9)")
        assert running.pid_of("steady") != first


def test_a_member_that_wishes_is_replaced_at_once(start: Callable[..., Running]) -> None:
    running = start("brief")
    first = running.pid_of("brief")
    with within(2.5):
        assert running.pid_of("brief") != first


def test_a_member_that_fails_is_started_again_later_each_time(
    start: Callable[..., Running],
) -> None:
    running = start("failing", "steady")
    moments = []
    while len(moments) < 3:
        line = running.says()
        if line[0] == "failing":
            moments.append(float(line[1]))
    first, second = moments[1] - moments[0], moments[2] - moments[1]
    assert first >= 1
    assert second >= 2
    said = running.complains()
    assert said.startswith("failing ends: RuntimeError at failing, line ")
    assert "a token" not in said


def test_a_member_that_hangs_is_killed_and_replaced(start: Callable[..., Running]) -> None:
    running = start("hanging", "idle")
    idle = running.pid_of("idle")
    with within(10):
        first = running.pid_of("hanging")
        assert running.pid_of("hanging") != first
    assert family(idle)  # it is not busy


def test_it_goes_on_after_it_was_stopped_for_a_while(start: Callable[..., Running]) -> None:
    """As by SIGSTOP, a frozen container or a suspended machine, longer than it waits."""
    running = start("steady", "brief")
    first = running.pid_of("steady")
    running.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, running.process.pid, os.WSTOPPED | os.WNOWAIT)
    time.sleep(1.5)  # its time passes while it cannot see it
    running.process.send_signal(signal.SIGCONT)
    with within(10):
        os.kill(first, signal.SIGKILL)
        assert running.pid_of("steady") != first
        running.process.send_signal(signal.SIGTERM)
        assert "gone" in running.ends()


def test_it_stops_in_order(start: Callable[..., Running]) -> None:
    running = start("steady", "steady")
    running.says()
    with within(5):
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == ["stopped", "gone"]


def test_ctrl_c_stops_in_order_too(start: Callable[..., Running]) -> None:
    running = start("steady")
    running.says()
    os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does: to all of them
    assert running.ends()[-1] == "gone"


def test_who_does_not_stop_is_killed_in_the_end(start: Callable[..., Running]) -> None:
    running = start("deaf")
    deaf = running.pid_of("deaf")
    with within(15):
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == ["told", "gone"]
    assert not family(deaf)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_second_signal_kills_at_once(
    start: Callable[..., Running], second: signal.Signals
) -> None:
    running = start("deaf")
    running.pid_of("deaf")
    with within(4):
        running.process.send_signal(signal.SIGTERM)
        assert running.says() == ["told"]
        running.process.send_signal(second)
        assert running.ends() == ["gone"]


def test_sigquit_kills_at_once(start: Callable[..., Running]) -> None:
    running = start("deaf")
    running.pid_of("deaf")
    with within(4):
        running.process.send_signal(signal.SIGQUIT)
        assert running.ends() == ["gone"]


def test_members_end_with_a_parent_that_is_killed(start: Callable[..., Running]) -> None:
    running = start("steady")
    running.pid_of("steady")
    running.process.kill()
    with within(5):
        assert running.says() == ["stopped"]


def test_orphans_of_members_do_not_confuse_it(start: Callable[..., Running]) -> None:
    running = start("orphaning")
    orphaning = running.pid_of("orphaning")
    running.process.send_signal(signal.SIGTERM)
    running.ends()
    assert not family(orphaning)
