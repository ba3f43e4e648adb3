"""Which process does what: nothing that may be slow shares a process with what must not wait."""

from __future__ import annotations

from itertools import combinations

import pytest

from scanner.commands.worker import most_bytes
from scanner.db.lanes import Lane
from scanner.settings import Settings
from scanner.slots import NAMES, Slot, plan, short
from scanner.worker import DELIVER, QUEUES, RECHECK, RESPOND, SCANS


def shown(slots: tuple[Slot, ...]) -> dict[str, str]:
    return {slot.name: " ".join(map(short, slot.queues)) for slot in slots}


def test_what_patrol_worker_starts() -> None:
    assert shown(plan(NAMES, 2)) == {
        "respond": "respond",
        "recheck": "respond recheck",
        "deliver": "deliver",
        "scan-1": "reports webhooks",
        "scan-2": "reports webhooks feed history",
    }
    steps = {slot.name: slot.steps for slot in plan(NAMES, 2)}
    assert steps["scan-1"] == (SCANS[Lane.WEBHOOKS],)
    assert steps["scan-2"] == (SCANS[Lane.HISTORY],)
    assert steps["recheck"] == (RESPOND, RECHECK)


@pytest.mark.parametrize("concurrency", [2, 3, 5, 8])
def test_half_of_the_scanning_processes_take_no_history(concurrency: int) -> None:
    scanning = [slot for slot in plan(NAMES, concurrency) if slot.scans]
    assert len(scanning) == concurrency
    assert sum(SCANS[Lane.HISTORY] not in slot.queues for slot in scanning) == concurrency // 2


def test_one_process_takes_every_scan() -> None:
    (only,) = (slot for slot in plan(NAMES, 1) if slot.scans)
    assert only.queues == tuple(SCANS.values())


@pytest.mark.parametrize("count", range(1, len(NAMES) + 1))
def test_every_choice_of_queues_is_served_and_nothing_else(count: int) -> None:
    for names in combinations(NAMES, count):
        for concurrency in (1, 2, 3):
            slots = plan(names, concurrency)
            assert {short(queue) for slot in slots for queue in slot.queues} == set(names)
            looked = {step for slot in slots for step in slot.steps}
            for slot in slots:
                # Each process looks of its own accord for all that it can be woken for.
                assert slot.scans or slot.queues == slot.steps
                assert set(slot.steps) <= set(slot.queues)
                assert len(slot.heartbeat) <= 64
            if RESPOND in looked:
                # One process does nothing but revoke.
                assert any(slot.queues == (RESPOND,) for slot in slots)
            for slot in slots:
                if DELIVER in slot.queues:
                    assert slot.queues == (DELIVER,)
                assert not (slot.scans and {RESPOND, RECHECK} & set(slot.queues))


def test_the_urgent_is_heard_first() -> None:
    order = [RESPOND, RECHECK, DELIVER, *SCANS.values()]
    assert list(QUEUES) == order
    for slot in plan(NAMES, 4):
        assert list(slot.queues) == sorted(slot.queues, key=order.index)


def test_a_heartbeat_tells_who_listens_to_what() -> None:
    beats = [slot.heartbeat for slot in plan(NAMES, 2)]
    assert "worker:respond" in beats
    assert "worker:reports,webhooks,feed,history" in beats


def test_a_process_may_grow_enough_to_work(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(worker_max_memory_mb=128)
    assert most_bytes(settings, 30 << 20) == 128 << 20
    assert caplog.records == []
    assert most_bytes(settings, 120 << 20) == 184 << 20
    assert "PATROL_WORKER_MAX_MEMORY_MB is 128, and a process has 120 MiB" in caplog.text
