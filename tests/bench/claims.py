"""Claim 64 pushes and finish them: parse, match, record. Their packs were fetched beforehand.

A core is what is counted: processor time of the worker and of its parsing child together. The
database's own server has another; its time is told apart.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from cryptography.fernet import Fernet
from engines import on_each_database
from figures import Figure
from sqlalchemy import Engine, func, select

from scanner import logs, metrics
from scanner.db.leases import Patience
from scanner.db.ledger import DatabaseLedger
from scanner.db.scans import PushRow, accept_push
from scanner.db.schema import scans
from scanner.db.seals import Sealer
from scanner.embedded.git_server import git
from scanner.git.sandbox import SandboxInspector
from scanner.judge import Judge
from scanner.keyring import Key
from scanner.matcher.engine import Matcher
from scanner.patterns.generate import generate
from scanner.patterns.loader import load
from scanner.scan.run import Scanner
from scanner.stores.memory import MemoryTokenStore
from tests.scans.packs import PacksAtHand

_BATCH = 64
_PATTERN = "azure-devops-pat"
_LARGEST = 20_000  # bytes of a file that is changed
_FILES = 2  # changed by a push
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Taken:
    """What one batch took: seconds of the clock, and of the processors."""

    wall: float
    worker: float
    child: float

    @property
    def core(self) -> float:
        return self.worker + self.child


def measure(quick: bool) -> list[Figure]:
    """Run batches of clean pushes, and of pushes of which one leaks, on each database."""
    batches = 3 if quick else 40
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        token = generate(_PATTERN)
        *clean, leak = _pushes(Path(folder), _BATCH, token.reveal().decode())
        fetcher = PacksAtHand(dict([*clean, leak]))
        size = statistics.median(len(data) for _, data in clean)
        with ExitStack() as running:
            running.callback(fetcher.close)
            running.enter_context(_counted_and_logged(Path(folder) / "metrics"))
            for name, engine in on_each_database(running):
                for kind, heads in (
                    ("none leaks", [head for head, _ in clean]),
                    ("one leaks", [*(head for head, _ in clean[1:]), leak[0]]),
                ):
                    with ExitStack() as inner:
                        scanner = _scanner(engine, fetcher, token)
                        inner.callback(scanner.inspector.close)
                        taken = [_batch(scanner, heads) for _ in range(batches + 1)][1:]
                    rows += _figures(f"{name}, {kind}", taken, size)
    return rows


@contextmanager
def _counted_and_logged(folder: Path) -> Iterator[None]:
    """As in a worker: counts go to files, and each scan is a line of the log."""
    metrics.start(folder, "worker")
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
        logs.configure("worker", style="json", redact=Matcher(load()).redact)
        yield


def _figures(name: str, taken: Sequence[Taken], size: float) -> list[Figure]:
    core, wall, worker, child = (
        statistics.median(getattr(one, kind) for one in taken) / _BATCH
        for kind in ("core", "wall", "worker", "child")
    )
    return [
        Figure(
            f"64 pushes of {size / 1e3:.0f} KB, {name}: claimed and finished",
            f"{1 / core:,.0f}/s a core", "1", "≥ 1,000/s",
        ),
        Figure("… by the clock", f"{1 / wall:,.0f}/s", f"{core / wall:.2f}"),
        Figure("… a push, worker", f"{worker * 1e6:.0f} µs", f"{worker / core:.2f}"),
        Figure("… a push, parsing child", f"{child * 1e6:.0f} µs", f"{child / core:.2f}"),
    ]  # fmt: skip


def _scanner(engine: Engine, fetcher: PacksAtHand, token: object) -> Scanner:
    ruleset, bound = load(), frozenset({_PATTERN})
    matcher, store = Matcher(ruleset, bound=bound), MemoryTokenStore()
    store.issue(token, pattern=_PATTERN, mask="…abcd")
    sealer = Sealer([Key("s1", Fernet.generate_key())])
    inspector = SandboxInspector(ruleset, bound=bound)
    inspector.warm()
    judge = Judge(
        engine=engine, store=store, bound=bound, keys=[Key("f1", b"k" * 32)], sealer=sealer,
        keep_ms=_DAY_MS, redact=matcher.redact,
    )  # fmt: skip
    return Scanner(
        engine=engine, fetcher=fetcher, inspector=inspector, matcher=matcher, judge=judge,
        sealer=sealer, patience=Patience(60_000, 3, 2),
        ledger=DatabaseLedger(engine, keep_ms=_DAY_MS, most_rows=1_000),
    )  # fmt: skip


def _batch(scanner: Scanner, heads: Sequence[str]) -> Taken:
    """Accept a push of each head, to a repository of its own; time until all have a verdict."""
    with scanner.engine.begin() as connection:
        for head in heads:
            name = f"acme/{token_hex(8)}"
            digest, zeros = token_hex(32), "0" * 40
            accept_push(
                connection,
                PushRow("bench", digest, "https://x", name, "refs/heads/main", zeros, head,
                        forced=False, delivery=None),
            )  # fmt: skip
    pid = scanner.inspector.pid
    wall, worker, child = time.perf_counter(), time.process_time(), _processor_seconds(pid)
    assert scanner.run_batch()
    taken = Taken(
        time.perf_counter() - wall, time.process_time() - worker, _processor_seconds(pid) - child
    )
    with scanner.engine.connect() as connection:
        left = select(func.count()).select_from(scans).where(scans.c.state != "done")
        assert connection.execute(left).scalar_one() == 0
    return taken


def _processor_seconds(pid: int) -> float:
    """Of a process's threads, by the scheduler: finer than its ticks."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _pushes(folder: Path, count: int, token: str) -> list[tuple[str, bytes]]:
    """Commits to real source files, each as (commit, its pack); the last one leaks `token`."""
    source = random.Random(7)
    git("init", "--quiet", str(folder))
    stdlib = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    names = [name for name in stdlib if name.stat().st_size < _LARGEST]
    for name in names:
        (folder / name.name).write_bytes(name.read_bytes())
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "-m", "Base", cwd=folder)
    made = []
    for number in range(count + 1):
        for name in source.sample(names, _FILES):
            file = folder / name.name
            lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            said = token if number == count else str(source.random())
            lines.insert(source.randrange(len(lines) + 1), f"value = {said!r}")
            file.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
        git("commit", "--quiet", "--all", "-m", "Change", cwd=folder)
        made.append((git("rev-parse", "HEAD", cwd=folder), _pack(folder)))
    return made


def _pack(folder: Path) -> bytes:
    return subprocess.run(
        ["git", "pack-objects", "--stdout", "--revs", "-q", "--delta-base-offset"],
        cwd=folder, input=b"HEAD\n^HEAD~1\n", capture_output=True, check=True,
    ).stdout  # fmt: skip
