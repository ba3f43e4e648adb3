"""Counts add up over processes: none is lost with one that ends, none is counted twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scanner import metrics
from scanner.db.lanes import Lane
from scanner.incident import Phase
from scanner.metrics import FAMILIES, collect, services_of

ROOT = Path(__file__).parents[1]
DONE = {"lane": "webhooks", "outcome": "done"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "metrics"


@pytest.fixture
def service(folder: Path) -> Callable[..., subprocess.Popen[str]]:
    """Run a service that counts; see counting.py."""

    def run(role: str, *steps: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.counting", str(folder), role, *steps],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    return run


def end(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0
    return out


def read(folder: Path, name: str, **labels: str) -> dict[str, float]:
    """Service -> value of a series."""
    return {
        sample.labels["process"]: sample.value
        for family in collect(services_of(folder))
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def test_a_pool_counts_on_when_its_processes_are_replaced(folder: Path, service) -> None:
    end(service("worker", "count", "child:0", "child:1", "killed:0", "child:0", "count"))
    assert read(folder, "patrol_scans_total", **DONE) == {"worker-1": 42}
    assert read(folder, "patrol_scan_stage_seconds_count", stage="total") == {"worker-1": 40}
    assert read(folder, "patrol_scan_stage_seconds_bucket", stage="total", le="0.025") == {
        "worker-1": 40
    }
    assert read(folder, "patrol_scan_stage_seconds_bucket", stage="total", le="0.01") == {
        "worker-1": 0
    }
    # A hundred more processes leave no more files.
    before = len(list(folder.rglob("*.db")))
    end(service("worker", *["child:0", "child:1"] * 50))
    assert read(folder, "patrol_scans_total", **DONE) == {"worker-1": 1_000}
    assert len(list(folder.rglob("*.db"))) == before


def test_a_full_disk_ends_no_process_that_counts(folder: Path, service) -> None:
    """What is mapped into memory has its room from the first moment on: a hole would be filled when
    it is written to, and where that fails the process is killed (SIGBUS)."""
    end(service("worker", "count", "child:0"))
    files = list(folder.rglob("*.db"))
    assert len(files) >= 2
    for file in files:
        status = file.stat()
        assert status.st_blocks * 512 >= status.st_size > 0, file.name


def test_what_is_read_while_they_count_is_never_less_than_before(service) -> None:
    out = end(service("worker", *["child:0", "read", "killed:1", "read"] * 5))
    seen = [
        value
        for line in out.splitlines()
        for name, labels, value in json.loads(line)
        if name == "patrol_scans_total" and DONE.items() <= labels.items()
    ]
    assert seen == [10.0 * n for n in range(1, 11)]


def test_each_service_has_its_own_series(folder: Path, service) -> None:
    end(service("web", "count"))
    first = service("worker", "count", "count", "read", "wait")
    assert first.stdout is not None
    first.stdout.readline()  # it counts, and lives
    end(service("worker", "count"))
    assert read(folder, "patrol_broker_wakes_failed_total") == {
        "web-1": 1, "worker-1": 2, "worker-2": 1
    }  # fmt: skip
    # One that starts anew begins at 0; the others are left alone.
    end(service("web"))
    end(service("worker"))
    assert read(folder, "patrol_broker_wakes_failed_total") == {
        "web-1": 0, "worker-1": 2, "worker-2": 0
    }  # fmt: skip
    end(first)
    end(service("worker", "count"))
    assert read(folder, "patrol_broker_wakes_failed_total")["worker-1"] == 1


def test_a_folder_is_not_taken_from_processes_whose_parent_was_killed(
    folder: Path, service
) -> None:
    orphaning = (
        "import os, sys; from pathlib import Path; from scanner import metrics\n"
        "metrics.start(Path(sys.argv[1]), 'worker'); metrics.WAKES_FAILED.add()\n"
        "pid = os.fork()\n"
        "if pid: print(pid, flush=True); os.kill(os.getpid(), 9)\n"
        "sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", orphaning, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        parent.stdout.readline()  # the child lives until its input ends
        parent.wait(60)
        end(service("worker", "count"))
        assert read(folder, "patrol_broker_wakes_failed_total") == {"worker-1": 1, "worker-2": 1}


def test_counts_that_were_damaged_hide_no_others(
    folder: Path, service, caplog: pytest.LogCaptureFixture
) -> None:
    end(service("web", "count"))
    end(service("worker", "count"))
    for content in (
        b"",
        b"\xff" * 100,
        b"\x10\x00\x00\x00" + b"\0" * 4,
        b"\x40\0\0\0" + b"\xff" * 60,
    ):
        (folder / "worker-1" / "counter_main.db").write_bytes(content)
        assert read(folder, "patrol_broker_wakes_failed_total") == {"web-1": 1}
    assert "the counts of worker-1 cannot be read" in caplog.text


def test_the_folder_is_its_owners_only(folder: Path, service) -> None:
    end(service("web", "count"))
    assert (folder / "web-1").stat().st_mode & 0o077 == 0


def test_names_follow_the_fields_habits() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    for family in FAMILIES:
        assert family.name.startswith("patrol_")
        assert family.name.endswith("_total" if family.kind == "counter" else "_seconds")
        assert family.text.endswith(".")
        assert "process" not in family.labels
        known = [len(values) for values in family.labels.values() if values]
        assert all(count <= 12 for count in known)


def test_lanes_and_outcomes_are_named_as_they_are() -> None:
    assert tuple(lane.name.lower() for lane in Lane) == metrics.LANES
    ends = {phase.value for phase in Phase} - {Phase.OPEN.value, Phase.REVOKING.value}
    assert ends <= set(metrics.REVOCATIONS.labels["outcome"])


def test_without_a_start_counts_stay_in_memory(tmp_path: Path) -> None:
    script = (
        "from scanner import metrics; metrics.PUSHES.add(outcome='accepted'); metrics.become('x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_goes_back_makes_nothing_negative() -> None:
    family: Any = metrics.Seconds("patrol_x_seconds", "X.", (1.0,))
    FAMILIES.remove(family)
    for seconds in (-5.0, 0.25):
        family.note(seconds)
    (read,) = family._made.collect()
    assert [s.value for s in read.samples if s.name.endswith("_sum")] == [0.25]
