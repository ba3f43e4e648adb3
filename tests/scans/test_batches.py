"""A batch of scans: each verdict is told at once, and what takes too long is given back."""

from __future__ import annotations

import threading
from dataclasses import replace
from time import monotonic

from sqlalchemy import update

from scanner.db.lanes import Lane
from scanner.db.schema import incidents, scans
from scanner.deadline import Deadline
from scanner.model import Inspection
from tests.scans.world import LONG, ZEROS, World


def row(world: World, scan_id: str) -> tuple[str, int, int, str | None]:
    (found,) = (one for one in world.rows(scans) if one["id"] == scan_id)
    return found["state"], found["attempts"], found["retries"], found["error"]


def test_a_leak_is_told_while_a_neighbour_keeps_the_batch_waiting(
    world: World, repository, ours, slow_push
) -> None:
    scanner, slow = slow_push
    head = repository.commit({"k": ours()})
    repository.push()
    world.push("acme/app", ZEROS, head)
    deadline, told = Deadline(LONG), []

    def on_leak() -> None:
        told.append([incident["state"] for incident in world.rows(incidents)])
        deadline.cut(1)  # the worker is told to stop, and has a second

    began = monotonic()
    assert scanner.run_batch(deadline, on_leak=on_leak)
    assert monotonic() - began < LONG / 2
    assert told == [["pending"]]  # the verdict is durable by then
    assert row(world, slow) == ("pending", 0, 0, None)  # nobody's fault
    assert sorted(scan["state"] for scan in world.rows(scans)) == ["done", "pending"]


def test_a_scan_that_uses_up_the_batch_s_time_is_put_off(world: World, slow_push) -> None:
    scanner, slow = slow_push
    assert scanner.run_batch(Deadline(0.5))
    state, attempts, retries, error = row(world, slow)
    assert (state, attempts, retries) == ("pending", 0, 1)
    assert error == "The time that a batch of scans may take was over."


def test_a_deadline_waits_for_the_pack_that_is_being_read(world: World, repository) -> None:
    head = repository.commit({"a": "a"})
    repository.push()
    for number in range(3):
        world.push("acme/app", f"{number}" * 40, head)
    deadline = Deadline(LONG)
    began, open_files = threading.Event(), []

    class SlowInspector:
        """Reads its pack only after the deadline."""

        def inspect(self, pack, *_: object) -> Inspection:
            began.set()
            deadline.cut(0)
            threading.Event().wait(0.5)
            open_files.append(pack.file.read(4))
            return Inspection()

    assert replace(world.scanner, inspector=SlowInspector()).run_batch(deadline)
    assert began.is_set()
    assert open_files == [b"PACK"]  # one at a time, and to its end
    assert {scan["state"] for scan in world.rows(scans)} == {"pending"}
    assert world.scanner.run_batch()
    assert {scan["state"] for scan in world.rows(scans)} == {"done"}


def test_a_lane_s_worker_leaves_a_history_to_others(world: World, repository) -> None:
    head = repository.commit({"a": "a"})
    repository.push()
    history = world.push("acme/app", ZEROS, head)
    with world.engine.begin() as connection:
        connection.execute(update(scans).values(priority=Lane.HISTORY))
    push = world.push("acme/app", "1" * 40, head)
    assert world.scanner.run_batch(lane=Lane.WEBHOOKS)
    assert not world.scanner.run_batch(lane=Lane.FEED)
    assert (row(world, history)[0], row(world, push)[0]) == ("pending", "done")
    assert world.scanner.run_batch(lane=Lane.HISTORY)
    assert row(world, history)[0] == "done"
