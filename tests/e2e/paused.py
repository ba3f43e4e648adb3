"""A worker that stops after its NUMBERth commit until it is told to go on. Run by test_kill.py."""

from __future__ import annotations

import sys

from sqlalchemy import event

from scanner.bootstrap import Services
from scanner.settings import load_settings


def main() -> None:
    number = int(sys.argv[1])
    services = Services(load_settings())
    _ = services.database
    commits = 0

    @event.listens_for(services.engine, "commit")
    def _count(_connection: object) -> None:
        nonlocal commits
        commits += 1

    @event.listens_for(services.engine, "checkin")
    def _pause(*_: object) -> None:
        nonlocal number
        if commits == number:
            number = 0
            sys.stdout.write("paused\n")
            sys.stdout.flush()
            sys.stdin.readline()

    services.scanner.run_batch()
    services.inspector.close()


if __name__ == "__main__":
    main()
