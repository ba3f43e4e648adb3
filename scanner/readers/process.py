"""One reader's process, seen from outside: started, asked, and replaced when it dies."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scanner.git.wire import receive, send


class Reader:
    """A child that answers what it was asked, in that order. `asked` is what it owes.

    It begins to load at once; `begin` tells it what to look for. Its first answer says what it gave
    up (confinement.py). Errors of all that speaks to it: `OSError`, `EOFError`, `ValueError`.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # Where relative paths lead is the parent's; -P keeps that folder's modules out.
            self._child = subprocess.Popen(
                [sys.executable, "-s", "-P", "-m", "scanner.readers.child"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": str(Path(__file__).parents[2]), "LANG": "C.UTF-8"},
                start_new_session=True,
            )
        self.channel = ours
        self.asked: deque[Any] = deque()
        self.is_ready = False
        self.gave_up: dict[str, bool] = {}

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    def begin(self, message: dict[str, Any]) -> None:
        """Tell what to look for."""
        send(self.channel, {**message, "parent": os.getpid()})

    def ask(self, job: Any, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Ask for something; `job` is what the answer will belong to."""
        self.asked.append(job)
        send(self.channel, message, descriptors)

    def take(self) -> Any:
        """Return the next answer; None: it was the first one, and the reader is ready."""
        answer, _ = receive(self.channel)
        if self.is_ready:
            return answer
        self.gave_up = {str(name): bool(value) for name, value in answer.items()}
        self.is_ready = True
        return None

    def stop(self) -> None:
        """End the process."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        self._child.wait()
