"""Worker processes: what keeps whom waiting, what becomes of the work of one that dies or stops."""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import select, update

from scanner.db.dialect import SQLITE
from scanner.db.lanes import Lane
from scanner.db.schema import heartbeats, incidents, outbox, scans, tokens
from scanner.slots import NAMES
from scanner.sources.github_push import Push
from tests.databases import Databases
from tests.e2e.gate import Gate
from tests.servers.guardian import family
from tests.servers.redis import RedisServer

ZEROS = "0" * 40


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest, databases: Databases) -> dict[str, str]:
    """SQLite goes with the embedded broker, PostgreSQL with Redis."""
    if databases.kind == SQLITE:
        return {}
    server: RedisServer = request.getfixturevalue("shared_redis")
    server.flush()
    return {"broker_url": server.url()}


@pytest.fixture
def gate(server: Any) -> Iterator[Gate]:
    with Gate(server.address) as opened:
        yield opened


def member(worker: Any, name: str) -> int:
    """The process of a worker that has this name; 0: there is none."""
    for pid in family(worker.pid):
        with suppress(OSError):  # it has just ended
            if Path(f"/proc/{pid}/comm").read_text().strip() == f"patrol:{name}":
                return pid
    return 0


def accept(house: Any, name: str, after: str, **fields: Any) -> str:
    """Store a push, as the web process does."""
    push = Push("default", os.urandom(16).hex(), name, "refs/heads/main", ZEROS, after, False)
    scan_id: str = house.services.intake.accept(push, None)[0]
    if fields:
        with house.services.database.begin() as connection:
            connection.execute(update(scans).where(scans.c.id == scan_id).values(**fields))
    return scan_id


def leak(house: Any, name: str) -> tuple[str, str]:
    """Commit a fresh token; returns its id and the commit."""
    token, token_id = house.issue()
    repository = house.repository(name)
    after = repository.commit({"key.txt": f"key = {token}\n"})
    repository.push()
    return token_id, after


def row(house: Any, table: Any, row_id: str) -> Any:
    (found,) = house.rows(select(table).where(table.c.id == row_id))
    return found


def is_revoked(house: Any, token_id: str) -> bool:
    return bool(row(house, tokens, token_id)["state"] == "revoked")


def up(house: Any, wait: Any, *arguments: str) -> Any:
    """Start a worker and wait until its processes have reported."""
    worker = house.start("worker", *arguments)
    names = select(heartbeats.c.name).where(heartbeats.c.name.like("worker:%"))
    wait("the worker", lambda: len(house.rows(names)) >= 5)
    return worker


@pytest.mark.parametrize("lane", [Lane.WEBHOOKS, Lane.HISTORY])
def test_slow_pushes_and_a_hanging_mail_server_hold_no_revocation_up(
    build_house: Any, wait: Any, gate: Gate, broker: dict[str, str], lane: Lane
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as silent:
        house = build_house(
            github_url=f"http://{gate.address}",
            allow_hosts=gate.address,
            smtp_url=f"smtp://127.0.0.1:{silent.getsockname()[1]}",
            **broker,
        )
        gate.closed = "/slow/"
        leaks = [leak(house, f"acme/l{number}") for number in range(30)]
        # The first leak shares its batch with the slow ones: nothing else was there.
        for number in range(63):
            accept(house, f"slow/r{number}", "a" * 40, priority=lane)
        accept(house, "acme/l0", leaks[0][1], priority=lane)
        house.start("beat")
        up(house, wait)
        for _ in range(63):
            assert gate.held.acquire(timeout=60)
        for number, (_, after) in enumerate(leaks[1:], 1):
            accept(house, f"acme/l{number}", after)
        wait(
            "all revocations",
            lambda: all(is_revoked(house, token_id) for token_id, _ in leaks),
        )
        told = select(incidents.c.id).where(incidents.c.revoked_at.is_not(None))
        wait("their record", lambda: len(house.rows(told)) == 30)
        found = house.rows(select(incidents))
        waited = sorted(one["revoked_at"] - one["opened_at"] for one in found)
        assert len(waited) == 30
        p99 = waited[-1]
        print(f"proved to revoked, ms: median {statistics.median(waited)}, worst {p99}")
        assert p99 < 10_000  # a mail takes longer, and the slow pushes are still there
        running = select(scans.c.id).where(scans.c.state == "running")
        assert len(house.rows(running)) == 63
        assert {one["state"] for one in house.rows(select(outbox))} <= {"pending", "running"}


def test_a_history_keeps_no_push_waiting(
    build_house: Any, wait: Any, gate: Gate, broker: dict[str, str]
) -> None:
    house = build_house(github_url=f"http://{gate.address}", allow_hosts=gate.address, **broker)
    gate.closed = "/slow/"
    for number in range(200):  # more than all processes can have in the air
        accept(house, f"slow/r{number}", "a" * 40, priority=Lane.HISTORY)
    house.start("beat")
    up(house, wait)
    assert gate.held.acquire(timeout=60)
    token_id, after = leak(house, "acme/pushed")
    scan_id = accept(house, "acme/pushed", after)
    began = monotonic()
    wait("the revocation", lambda: is_revoked(house, token_id))
    assert monotonic() - began < 15
    assert row(house, scans, scan_id)["state"] == "done"


def test_the_work_of_a_process_that_is_killed_is_done_within_seconds(
    build_house: Any, wait: Any, gate: Gate, broker: dict[str, str]
) -> None:
    house = build_house(
        github_url=f"http://{gate.address}", allow_hosts=gate.address, lease_seconds=2, **broker
    )
    token_id, after = leak(house, "acme/killed")
    gate.closed = "/"
    scan_id = accept(house, "acme/killed", after)
    house.start("beat")
    worker = up(house, wait)
    assert gate.held.acquire(timeout=60)
    gate.closed = None
    children = {name: member(worker, name) for name in ("scan-1", "scan-2")}
    holders = [pid for pid in children.values() if len(family(pid)) == 2]
    began = monotonic()
    for pid in holders:  # whichever of them holds it, and its parsing child
        os.kill(pid, signal.SIGKILL)
    wait("the revocation", lambda: is_revoked(house, token_id))
    assert monotonic() - began < 20  # far less than the task might take
    scan = row(house, scans, scan_id)
    assert (scan["state"], scan["fence"]) == ("done", 2)
    for pid in holders:
        assert not family(pid)
    wait("fresh processes", lambda: all(member(worker, name) for name in children))
    # Each has a parsing child of its own again, and nobody else's is left.
    wait("warm processes", lambda: all(len(family(member(worker, n))) == 2 for n in children))
    parsers = [
        pid for pid in family(worker.pid)
        if b"sandbox_child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]  # fmt: skip
    assert len(parsers) == 2


def test_a_worker_that_is_told_to_stop_finishes_and_hands_back(
    build_house: Any, wait: Any, gate: Gate, broker: dict[str, str]
) -> None:
    house = build_house(
        github_url=f"http://{gate.address}", allow_hosts=gate.address, stop_seconds=2, **broker
    )
    gate.closed = "/slow/"
    slow = [accept(house, f"slow/r{number}", "a" * 40) for number in range(3)]
    worker = up(house, wait)
    for _ in slow:
        assert gate.held.acquire(timeout=60)
    worker.send_signal(signal.SIGTERM)
    began = monotonic()
    assert worker.wait(30) == 0
    assert monotonic() - began < 12
    for scan_id in slow:  # as if nobody had tried
        scan = row(house, scans, scan_id)
        assert (scan["state"], scan["attempts"], scan["retries"]) == ("pending", 0, 0)
        assert (scan["fence"], scan["error"]) == (1, None)


def test_a_second_signal_is_a_power_cut(
    build_house: Any, wait: Any, gate: Gate, broker: dict[str, str]
) -> None:
    house = build_house(
        github_url=f"http://{gate.address}", allow_hosts=gate.address, stop_seconds=60, **broker
    )
    gate.closed = "/slow/"
    scan_id = accept(house, "slow/one", "a" * 40)
    worker = up(house, wait)
    assert gate.held.acquire(timeout=60)
    members = family(worker.pid)
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGQUIT)
    began = monotonic()
    assert worker.wait(30) == 0
    assert monotonic() - began < 10
    wait("all its processes to end", lambda: not any(map(family, members)))
    assert row(house, scans, scan_id)["state"] == "running"  # until its lease ends


def test_a_process_that_hangs_is_killed_and_its_work_done(
    build_house: Any, wait: Any, gate: Gate, broker: dict[str, str]
) -> None:
    house = build_house(
        github_url=f"http://{gate.address}", allow_hosts=gate.address,
        task_seconds=4, fetch_timeout=2, inspect_timeout=1, lease_seconds=2, **broker,
    )  # fmt: skip
    gate.closed = "/"
    token_id, after = leak(house, "acme/hangs")
    accept(house, "acme/hangs", after)
    house.start("beat")
    worker = up(house, wait)
    assert gate.held.acquire(timeout=60)
    stopped = [member(worker, name) for name in ("scan-1", "scan-2")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    gate.closed = None
    wait("the one that was busy to be replaced", lambda: not all(map(family, stopped)))
    for pid in stopped:
        if family(pid):
            os.kill(pid, signal.SIGCONT)
    wait("the revocation", lambda: is_revoked(house, token_id))


def test_a_worn_out_process_is_replaced_by_a_warm_one(
    build_house: Any, wait: Any, gate: Gate, broker: dict[str, str]
) -> None:
    house = build_house(
        github_url=f"http://{gate.address}", allow_hosts=gate.address, worker_max_tasks=1, **broker
    )
    house.start("beat")
    worker = up(house, wait)
    names = ("respond", "recheck", "deliver", "scan-1", "scan-2")
    first = {name: member(worker, name) for name in names}
    assert all(first.values())
    for number in range(3):
        token_id, after = leak(house, f"acme/worn{number}")
        accept(house, f"acme/worn{number}", after)
        wait("the revocation", lambda token_id=token_id: is_revoked(house, token_id))
    for kind in ("re", "scan"):  # one of each kind has worked at least
        wait(
            "fresh processes",
            lambda kind=kind: any(
                member(worker, name) not in {pid, 0}
                for name, pid in first.items()
                if name.startswith(kind)
            ),
        )
    wait(
        "warm processes",
        lambda: all(len(family(member(worker, name))) == 2 for name in ("scan-1", "scan-2")),
    )
    said = (house.folder / "worker.out").read_text()
    # One that is worn out within its first second is started again a little later, and that is all.
    assert not re.search(r"ended \((signal|exit code [1-9])", said)


def test_each_queue_may_have_a_worker_of_its_own(build_house: Any, wait: Any) -> None:
    house = build_house()
    house.start("worker", "--queues", "respond")
    beats = select(heartbeats.c.name).where(heartbeats.c.name.like("worker:%"))
    wait("it to report", lambda: house.rows(beats))
    assert [one["name"] for one in house.rows(beats)] == ["worker:respond"]
    others = ", ".join(name for name in NAMES if name != "respond")
    assert f"nobody works on {others}" in " ".join(house.patrol("doctor").stdout.split())
    refused = house.patrol("worker", "--queues", "respond,nothing")
    assert refused.returncode == 2
    assert f"choose from {', '.join(NAMES)}" in refused.stderr
