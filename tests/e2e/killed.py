"""Patrol's work in processes that die, as of kill -9, at a chosen commit. Run by test_kill.py.

Reads one line a process, "NUMBER before|after": die just before, or just after, the NUMBERth
commit; NUMBER 0 does all the work there is. Answers each with "EXIT-CODE COMMITS".
"""

from __future__ import annotations

import os
import signal
import sys

from sqlalchemy import Connection, event

from scanner.bootstrap import Services
from scanner.rounds import seal_all
from scanner.settings import load_settings


def work(number: int, moment: str) -> int:
    """Do everything there is to do; returns how many commits that took."""
    services = Services(load_settings())
    services.inspector.warm()
    _ = services.database
    commits = 0

    def die_at(this: str) -> None:
        if number and commits == number and moment == this:
            os.kill(os.getpid(), signal.SIGKILL)

    @event.listens_for(services.engine, "commit")
    def _before(_connection: Connection) -> None:
        nonlocal commits
        commits += 1
        die_at("before")

    @event.listens_for(services.engine, "checkin")  # the first thing after a commit
    def _after(*_: object) -> None:
        die_at("after")

    steps = (services.scanner, services.responder, services.deliverer)
    while sum(step.run_batch() for step in steps):
        pass
    seal_all(services)
    services.inspector.close()
    return commits


def main() -> None:
    # Forked, so that what takes longest, importing, is done once.
    for line in sys.stdin:
        number, moment = line.split()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, str(work(int(number), moment)).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            commits = answer.read() or "-"
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)} {commits}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
