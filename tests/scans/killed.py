"""A process that scans until nothing is left, and dies of it: as of kill -9.

    python -m tests.scans.killed DATABASE_URL PACK HEAD[,HEAD...] WHERE

Every head has the same pack. WHERE is where it dies: "before" or "after" the commit of a batch's
verdicts, or at the pack of one of the heads (that head).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from scanner.patterns.loader import load
from tests.scans.packs import PacksAtHand
from tests.scans.world import build_world


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_around_verdicts(engine: Engine, where: str) -> None:
    finishing = False

    @event.listens_for(engine, "before_cursor_execute")
    def _seen(_connection: Connection, _cursor: Any, statement: str, *_: object) -> None:
        nonlocal finishing
        finishing |= " ".join(statement.split()).startswith("UPDATE scans SET") and (
            "proved_at" in statement
        )

    @event.listens_for(engine, "commit")
    def _before(_connection: Connection) -> None:
        if finishing and where == "before":
            die()

    @event.listens_for(engine, "checkin")  # the first thing after a commit
    def _after(*_: object) -> None:
        if finishing and where == "after":
            die()


def main() -> None:
    url, pack, heads, where = sys.argv[1:]
    data = Path(pack).read_bytes()
    fetcher = PacksAtHand(
        dict.fromkeys(heads.split(","), data), lambda head: die() if head == where else None
    )
    world = build_world(url, "http://127.0.0.1:1", fetcher, load())
    die_around_verdicts(world.engine, where)
    while world.scanner.run_batch():
        pass


if __name__ == "__main__":
    main()
