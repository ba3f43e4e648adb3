"""Pushes without a finding share the commit of their verdicts, and nothing else: neither a stale
lease, nor a fault, nor slowness, nor a leak."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from scanner.db import leases
from scanner.db.schema import incidents, scanned_heads, scans
from scanner.deadline import Deadline
from scanner.git.inline import InlineInspector
from scanner.model import Inspection
from tests.reliability.points import Points, watch_commits
from tests.scans.packs import PacksAtHand
from tests.scans.world import ZEROS, World

BATCH = 64
FEW = 6


@pytest.fixture
def pack(repository) -> bytes:
    repository.commit({"a": "nothing that leaks"})
    return repository.pack()


@pytest.fixture
def close() -> Iterator[ExitStack]:
    with ExitStack() as closing:
        yield closing


def push(world: World, count: int) -> list[str]:
    """Accept so many pushes, each to a repository of its own; returns their heads."""
    heads = [secrets.token_hex(20) for _ in range(count)]
    for number, head in enumerate(heads):
        world.push(f"acme/r{number}", ZEROS, head)
    return heads


def at_hand(
    close: ExitStack,
    pack: bytes,
    heads: list[str],
    before: Callable[[str], object] = lambda _head: None,
) -> PacksAtHand:
    fetcher = PacksAtHand(dict.fromkeys(heads, pack), before)
    close.callback(fetcher.close)
    return fetcher


def by_head(world: World) -> dict[str, dict[str, Any]]:
    return {row["after"]: dict(row) for row in world.rows(scans)}


def test_a_batch_is_two_commits(
    world: World, pack: bytes, close: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is done is committed while others take their time; here none is waited for.
    monkeypatch.setattr("scanner.scan.run._LOOK_SECONDS", 60.0)
    heads = push(world, BATCH)
    seen: set[tuple[str, int]] = set()

    def look(_head: str) -> None:
        seen.update((row["state"], row["attempts"]) for row in world.rows(scans))

    scanner = replace(world.scanner, fetcher=at_hand(close, pack, heads, look))
    points = Points(None, None, lambda: None)
    watch_commits(world.engine, points)
    assert scanner.run_batch()
    assert seen == {("running", 1)}  # attempts are durable before the work begins
    assert [label for label in points.passed if label.startswith("before commit")] == [
        "before commit: update scans",
        "before commit: insert scanned_heads, update scans",
    ]
    rows = world.rows(scans)
    assert len(rows) == BATCH
    for row in rows:
        assert (row["state"], row["partial"], row["lease_until"]) == ("done", [], None)
        assert (row["candidates"], row["objects"], row["bytes"]) == (0, 3, len(pack))
        assert row["received_at"] <= row["fetched_at"] <= row["matched_at"] <= row["proved_at"]
    assert {row["object_id"] for row in world.rows(scanned_heads)} == set(heads)
    assert not scanner.run_batch()


def test_one_that_was_lost_is_left_to_its_new_owner(
    world: World, pack: bytes, close: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    heads = push(world, BATCH)
    lost = heads[40]

    def lose(head: str) -> None:
        if head == lost:
            with world.engine.begin() as connection:  # another took over while we were paused
                row = scans.c.after == lost
                connection.execute(update(scans).where(row).values(fence=scans.c.fence + 1))

    scanner = replace(world.scanner, fetcher=at_hand(close, pack, heads, lose))
    assert scanner.run_batch()
    rows = by_head(world)
    theirs = rows.pop(lost)
    assert (theirs["state"], theirs["fence"], theirs["attempts"]) == ("running", 2, 1)
    assert (theirs["proved_at"], theirs["fetched_at"], theirs["objects"]) == (None, None, None)
    assert {row["state"] for row in rows.values()} == {"done"}
    assert {row["object_id"] for row in world.rows(scanned_heads)} == set(rows)
    assert caplog.text.count("the lease was lost") == 1


def test_one_that_ended_meanwhile_stays_as_it_ended(
    world: World, pack: bytes, close: ExitStack
) -> None:
    heads = push(world, FEW)

    def end(head: str) -> None:
        if head == heads[0]:
            with world.engine.begin() as connection:
                row = scans.c.after == head
                connection.execute(update(scans).where(row).values(state="parked", error="no"))

    replace(world.scanner, fetcher=at_hand(close, pack, heads, end)).run_batch()
    rows = by_head(world)
    assert (rows[heads[0]]["state"], rows[heads[0]]["error"]) == ("parked", "no")
    assert [rows[head]["state"] for head in heads[1:]] == ["done"] * (FEW - 1)


class Boasting(InlineInspector):
    """Says of every second pack that it has more objects than a database can count."""

    count = 0

    def inspect(self, *arguments: Any) -> Inspection:
        self.count += 1
        inspection = super().inspect(*arguments)
        return replace(inspection, objects=1 << 70) if self.count % 2 else inspection


def test_a_verdict_that_cannot_be_written_spoils_no_other(
    world: World, pack: bytes, close: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    heads = push(world, FEW)
    inspector = Boasting(world.scanner.matcher)
    fetcher = at_hand(close, pack, heads)
    replace(world.scanner, fetcher=fetcher, inspector=inspector).run_batch()
    states = sorted((row["state"], row["attempts"]) for row in world.rows(scans))
    # Ours is the fault, or the input's: its attempt stays counted.
    assert states == [("done", 1)] * (FEW // 2) + [("pending", 1)] * (FEW // 2)
    done = {head for head, row in by_head(world).items() if row["state"] == "done"}
    assert {row["object_id"] for row in world.rows(scanned_heads)} == done
    assert "6 verdicts were not taken together" in caplog.text


def test_a_leak_does_not_wait_for_the_batch(
    world: World, pack: bytes, close: ExitStack, repository, ours
) -> None:
    heads = push(world, FEW)
    repository.commit({"k": ours()})
    leaking = repository.pack()
    packs = {**dict.fromkeys(heads, pack), heads[-1]: leaking}
    fetcher = PacksAtHand(packs)
    close.callback(fetcher.close)
    seen = []
    replace(world.scanner, fetcher=fetcher).run_batch(
        on_leak=lambda: seen.append(sorted(row["state"] for row in world.rows(scans)))
    )
    (states,) = seen
    assert "done" in states
    assert {row["state"] for row in world.rows(scans)} == {"done"}
    assert len(world.rows(incidents)) == 1


def test_clean_ones_do_not_wait_for_a_slow_neighbour(world: World, repository, slow_push) -> None:
    scanner, slow = slow_push
    head = repository.commit({"a": "a"})
    repository.push()
    clean = world.push("acme/app", ZEROS, head)
    assert scanner.run_batch(Deadline(3))
    rows = {row["id"]: row for row in world.rows(scans)}
    assert (rows[clean]["state"], rows[slow]["state"]) == ("done", "pending")
    given_back_at = rows[slow]["available_at"] - 1_000
    assert rows[clean]["proved_at"] < given_back_at - 1_000


def test_what_is_clean_at_the_deadline_is_written_down(
    world: World, pack: bytes, close: ExitStack
) -> None:
    heads = push(world, FEW)
    deadline = Deadline(60)

    class Cutting(InlineInspector):
        count = 0

        def inspect(self, *arguments: Any) -> Inspection:
            self.count += 1
            if self.count == 3:
                deadline.cut(0)  # the worker is told to stop
                threading.Event().wait(0.5)  # longer than anybody looks away
            return super().inspect(*arguments)

    cutting = Cutting(world.scanner.matcher)
    fetcher = at_hand(close, pack, heads)
    replace(world.scanner, fetcher=fetcher, inspector=cutting).run_batch(deadline)
    states = sorted((row["state"], row["attempts"]) for row in world.rows(scans))
    assert cutting.count == 3
    assert states == [("done", 1)] * 2 + [("pending", 0)] * (FEW - 2)
    assert len(world.rows(scanned_heads)) == 2


# Processes that die: tests/scans/killed.py.


@pytest.fixture
def die(database_url: str, pack: bytes, tmp_path: Path) -> Callable[[list[str], str], int]:
    """Scan in a process of its own, that dies somewhere; returns its exit code."""
    file = tmp_path / "pack"
    file.write_bytes(pack)

    def run(heads: list[str], where: str) -> int:
        arguments = [database_url, str(file), ",".join(heads), where]
        return subprocess.run(
            [sys.executable, "-m", "tests.scans.killed", *arguments],
            cwd=Path(__file__).parents[2], timeout=60, check=False,
        ).returncode  # fmt: skip

    return run


def end_leases(world: World) -> None:
    with world.engine.begin() as connection:
        running = update(scans).where(scans.c.state == leases.RUNNING)
        connection.execute(running.values(lease_until=0))


def test_killed_before_the_commit_of_a_batch(
    world: World, pack: bytes, close: ExitStack, die
) -> None:
    heads = push(world, FEW)
    assert die(heads, "before") == -signal.SIGKILL
    rows = world.rows(scans)
    assert {(row["state"], row["attempts"], row["proved_at"]) for row in rows} == {
        ("running", 1, None)
    }
    assert world.rows(scanned_heads) == []
    end_leases(world)
    scanner = replace(world.scanner, fetcher=at_hand(close, pack, heads))
    for done in range(1, FEW + 1):  # each alone: one of them may be what kills
        assert scanner.run_batch()
        assert [row["state"] for row in world.rows(scans)].count("done") == done
    assert not scanner.run_batch()
    assert {row["attempts"] for row in world.rows(scans)} == {2}
    assert len(world.rows(scanned_heads)) == FEW


def test_killed_after_the_commit_of_a_batch(
    world: World, pack: bytes, close: ExitStack, die
) -> None:
    heads = push(world, FEW)
    assert die(heads, "after") == -signal.SIGKILL
    assert {(row["state"], row["attempts"]) for row in world.rows(scans)} == {("done", 1)}
    assert len(world.rows(scanned_heads)) == FEW
    assert not replace(world.scanner, fetcher=at_hand(close, pack, heads)).run_batch()


def test_a_push_that_kills_is_parked_and_its_neighbours_go_on(world: World, die) -> None:
    heads = push(world, FEW)
    poison = heads[2]
    kills = 0
    while die(heads, poison) == -signal.SIGKILL:
        kills += 1
        assert kills <= 3
        end_leases(world)
    rows = by_head(world)
    assert kills == 3
    assert rows.pop(poison)["state"] == "parked"
    assert {row["state"] for row in rows.values()} == {"done"}
    assert {row["object_id"] for row in world.rows(scanned_heads)} == set(rows)
    assert world.actions() == ["scan.parked"]
