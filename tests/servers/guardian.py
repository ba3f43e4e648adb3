"""Runs one server for a test process, and ends it when that process is gone, however it went.

A program of its own (`python guardian.py PLAN`): it holds the reading end of a pipe whose other end
only the test process has, so even kill -9 of the tests is noticed, and the server's folder is
removed with it. Linux's death signal would not do: it is lost when the server changes its user,
and comes when a thread ends, not the process.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

_END_SECONDS = 10.0


def family(pid: int) -> list[int]:
    """Return the process and all that descend from it, parents first; [] when it is gone."""
    children: dict[int, list[int]] = {}
    states: dict[int, str] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                stat = Path(entry.path, "stat").read_text("latin-1").rpartition(")")[2].split()
                states[int(entry.name)] = stat[0]
                children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [pid] if states.get(pid, "Z") != "Z" else []
    for each in found:
        found.extend(child for child in children.get(each, []) if states[child] != "Z")
    return found


def send(number: int, pids: list[int]) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def remove(folder: str) -> None:
    """Remove a folder, though a process that is ending may still write into it."""
    deadline = time.monotonic() + _END_SECONDS
    while Path(folder).exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.01)


def main() -> int:
    """Run the server of the plan; returns its exit status, as a shell tells it."""
    plan = json.loads(sys.argv[1])
    who = {} if plan["user"] is None else dict.fromkeys(("user", "group"), plan["user"])
    with Path(plan["log"]).open("ab") as log:
        server = subprocess.Popen(
            plan["command"],
            cwd=plan["folder"],
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            extra_groups=[] if who else None,
            **who,
        )
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    ended = os.pidfd_open(server.pid)
    ready, _, _ = select.select([0, ended], [], [])
    if ended not in ready:  # the tests are gone
        members = family(server.pid)
        send(signal.SIGCONT, members)
        send(plan["last_signal"], members[:1])
        select.select([ended], [], [], _END_SECONDS)
        send(signal.SIGKILL, [*members, *family(server.pid)])
        server.wait()
        deadline = time.monotonic() + _END_SECONDS
        while any(map(family, members)) and time.monotonic() < deadline:
            time.sleep(0.01)  # children of a dead server are nobody's to wait for
        remove(plan["folder"])
    return server.wait() % 256


if __name__ == "__main__":
    sys.exit(main())
