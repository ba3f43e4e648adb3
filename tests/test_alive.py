"""Signs of life: this machine's own processes must each be there, and have been heard."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from time import monotonic

import pytest

from scanner.alive import Sign, begin, folder_of, require_alive
from scanner.errors import FinalError


def silent_for(folder: Path, name: str, seconds: float) -> None:
    """Let so many seconds pass."""
    file = folder / name
    then = file.stat().st_mtime - seconds
    os.utime(file, (then, then))


def test_each_host_has_a_folder_of_its_own(tmp_path: Path) -> None:
    assert folder_of(tmp_path) == tmp_path / "alive" / os.uname().nodename


def test_a_role_that_was_never_started_here_is_missing(tmp_path: Path) -> None:
    begin(tmp_path, "beat", ["round"])
    require_alive(tmp_path, "beat")
    with pytest.raises(FinalError, match="No worker was started here"):
        require_alive(tmp_path, "worker")


def test_every_process_must_be_heard(tmp_path: Path) -> None:
    begin(tmp_path, "worker", ["respond", "deliver"])
    respond, deliver = (Sign(tmp_path, "worker", name) for name in ("respond", "deliver"))
    respond.well()
    require_alive(tmp_path, "worker")  # deliver may still be starting
    silent_for(tmp_path, "worker.deliver", 61)
    with pytest.raises(FinalError, match="worker deliver has been silent since 1 seconds"):
        require_alive(tmp_path, "worker")
    deliver.well()
    require_alive(tmp_path, "worker")
    silent_for(tmp_path, "worker.respond", 31)
    with pytest.raises(FinalError, match="worker respond has been silent"):
        require_alive(tmp_path, "worker")


def test_who_is_busy_may_be_silent_for_as_long_as_it_said(tmp_path: Path) -> None:
    begin(tmp_path, "worker", ["scan-1"])
    sign = Sign(tmp_path, "worker", "scan-1")
    sign.well()
    sign.busy_until(monotonic() + 300)
    silent_for(tmp_path, "worker.scan-1", 300)
    require_alive(tmp_path, "worker")
    silent_for(tmp_path, "worker.scan-1", 20)
    with pytest.raises(FinalError, match="silent"):
        require_alive(tmp_path, "worker")
    sign.busy_until(0)  # its next report comes within seconds
    require_alive(tmp_path, "worker")
    assert (tmp_path / "worker.scan-1").stat().st_mtime < time.time() + 31


def test_a_step_that_ends_is_no_report(tmp_path: Path) -> None:
    """Steps end at once while the database is away: that is no sign of life."""
    begin(tmp_path, "worker", ["respond"])
    sign = Sign(tmp_path, "worker", "respond")
    for _ in range(3):
        sign.busy_until(monotonic() + 300)
        sign.busy_until(0)
    silent_for(tmp_path, "worker.respond", 11)
    with pytest.raises(FinalError, match="silent"):
        require_alive(tmp_path, "worker")


def test_one_that_ended_is_missed_at_once(tmp_path: Path) -> None:
    begin(tmp_path, "worker", ["respond"])
    program = "import sys; from pathlib import Path; from scanner.alive import Sign;"
    program += "Sign(Path(sys.argv[1]), 'worker', 'respond').well()"
    subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        cwd=Path(__file__).parents[1], check=True, timeout=60,
    )  # fmt: skip
    with pytest.raises(FinalError, match="worker respond has ended"):
        require_alive(tmp_path, "worker")


def test_what_an_earlier_start_left_counts_no_more(tmp_path: Path) -> None:
    begin(tmp_path, "worker", ["scan-9"])
    begin(tmp_path, "beat", ["round"])
    begin(tmp_path, "worker", ["respond"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["beat.round", "worker.respond"]


def test_a_sign_that_cannot_be_written_is_said_and_stops_no_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Sign(tmp_path / "nowhere", "worker", "respond").well()
    assert "the sign of life cannot be written: No such file" in caplog.text
