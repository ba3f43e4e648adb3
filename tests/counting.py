"""A service and its pool, as far as counting goes: run as a process of its own, it does what its
arguments say, one after another. `tests/test_metrics.py` reads what it leaves.

    count        count once, in this process
    child:NAME   the same in a forked process of that name, ten times, that ends in order
    killed:NAME  the same, but it is killed
    read         print what is exposed now, as JSON
    wait         wait for a line on standard input
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from scanner import metrics


def child(name: str, ending: str) -> None:
    pid = os.fork()
    if pid == 0:
        metrics.become(name)
        for _ in range(10):
            metrics.SCANS.add(lane="webhooks", outcome="done")
            metrics.SCAN_SECONDS.note(0.02, stage="total")
        if ending == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    os.waitpid(pid, 0)


def main() -> None:
    folder, role, *steps = sys.argv[1:]
    metrics.start(Path(folder), role)
    for step in steps:
        what, _, name = step.partition(":")
        if what == "count":
            metrics.SCANS.add(lane="webhooks", outcome="done")
            metrics.WAKES_FAILED.add()
        elif what == "read":
            families = metrics.collect(metrics.services_of(Path(folder)))
            print(json.dumps([s[:3] for family in families for s in family.samples]), flush=True)
        elif what == "wait":
            sys.stdin.readline()
        else:
            child(name, what)


if __name__ == "__main__":
    main()
