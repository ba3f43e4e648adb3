"""The fuzz target, for a minute in CI and for some seconds elsewhere; and that it can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scanner.matcher.engine import Matcher

pytest.importorskip("atheris", reason="atheris has no wheel for this platform")

_ROOT = Path(__file__).parents[2]
_SECONDS = 60 if os.environ.get("CI") else 8


def test_a_minute_of_fuzzing_breaks_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.target", f"-max_total_time={_SECONDS}"),
            *("-timeout=20", "-max_len=4096", "-seed=1", f"-artifact_prefix={tmp_path}/"),
        ],
        cwd=_ROOT, capture_output=True, text=True, timeout=_SECONDS + 240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4_000:]
    assert "Done" in done.stderr  # it ran until its time was over


def test_a_broken_promise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fuzz import target

    target.check(b"nothing")
    monkeypatch.setattr(target, "SLICED", Matcher(target.RULES, slice_bytes=61))
    token = target.generate("github-pat").reveal()
    target.reads_as_the_reference(b" " + token)
    monkeypatch.setattr(target, "spans", lambda _pattern, _data: [])
    with pytest.raises(AssertionError, match="not the reference's"):
        target.reads_as_the_reference(b" " + token)
