"""The short form: every figure can be taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_every_figure_can_be_taken() -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent), "--quick"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for what in (
        "parse and match",
        "64 pushes",
        "proved hit to revoked",
        "import of",
        "look-up of one",
        "Python source",
        "Scan a folder",
        "an empty folder",
        "Large files that are known",
        "webhook accepted to revoked",
    ):
        assert any(f"{mark} {what}" in done.stdout for mark in ("|", " of", "###"))
