"""The whole of it: `patrol demo --once`, read from its output and from its database."""

from __future__ import annotations

import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure

ROOT = Path(__file__).parents[2]


def measure(quick: bool) -> list[Figure]:
    told, ended = [], []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        for _ in range(1 if quick else 7):
            story, whole = _demo(data)
            told.append(story)
            ended.append(whole)
        with sqlite3.connect(data / "patrol.db") as database:
            rows = database.execute(
                "SELECT scans.received_at, scans.fetched_at, scans.proved_at, incidents.revoked_at,"
                " outbox.sent_at FROM incidents JOIN scans ON scans.id = correlation_id"
                " JOIN outbox ON outbox.incident_id = incidents.id WHERE source = 'github-webhook'"
            ).fetchall()
        database.close()
    steps = [statistics.median(row[i] - row[0] for row in rows) for i in range(1, 5)]
    fetched, proved, revoked, mailed = steps
    return [
        Figure("demo: start to its last line", f"{statistics.median(told):.1f} s", "", "≤ 15 s"),
        Figure("demo: start to everything stopped", f"{statistics.median(ended):.1f} s"),
        Figure("webhook accepted to revoked", f"{revoked:.0f} ms", "1", "≤ 1 s"),
        Figure("… to objects fetched", f"{fetched:.0f} ms", f"{fetched / revoked:.2f}"),
        Figure("… to proved", f"{proved:.0f} ms", f"{proved / revoked:.2f}"),
        Figure("… to mail delivered", f"{mailed:.0f} ms", f"{mailed / revoked:.2f}"),
    ]


def _demo(data: Path) -> tuple[float, float]:
    """Run it once; returns the seconds to the story's end and to the process's."""
    ports = {f"PATROL_{name}": str(_free_port()) for name in ("PORT", "SMTP_PORT", "MAIL_PORT")}
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "scanner.cli", "demo", "--once"],
        env={**os.environ, **ports, "PATROL_DATA_DIR": str(data)},
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        story = 0.0
        for line in running.stdout:
            if line.startswith("Both leaks ended."):
                story = time.monotonic() - began
        if running.wait() or not story:
            raise SystemExit("The demo failed; run: patrol demo --once")
    return story, time.monotonic() - began


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
