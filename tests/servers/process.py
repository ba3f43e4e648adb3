"""A real server as a process of the tests: started, killed, paused, and never left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.servers import guardian
from tests.servers.guardian import family, remove, send

_PATIENCE = 60.0  # seconds until a server must have done what it was told; all take far less
_LOOK_SECONDS = 0.005  # another process's state is polled: it sends no event
_FIRST_PORTS = range(15_000, 32_000)  # below those that Linux gives to outgoing connections


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, and that no connection will be given.

    A server that is killed must find its port free when it starts again.
    """
    while True:
        port = random.choice(_FIRST_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def folder_for(user: int | None, name: str) -> Path:
    """Make a folder that belongs to `user` (None: to us) at a place that it can reach."""
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108
        top = Path(place).resolve()
        if user is None or all(each.stat().st_mode & 0o001 for each in (top, *top.parents)):
            break
    folder = Path(tempfile.mkdtemp(prefix=f"patrol-{name}-", dir=top))
    if user is not None:
        os.chown(folder, user, user)
    return folder


class Server:
    """A server in a folder and on a port of its own; a context manager that removes both.

    `kill` is what a power cut does to it; `start` brings it back with the same folder and port.
    """

    name: str
    last_signal = signal.SIGKILL  # ends it at once; what it holds in memory may be lost
    stop_signal = signal.SIGTERM  # ends it in order

    def __init__(self, user: int | None = None) -> None:
        self.port = free_port()
        self.folder = folder_for(user, self.name)
        self._user = user
        self._guardian: subprocess.Popen[str] | None = None
        self.pid = 0

    def command(self) -> Sequence[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """True when it answers."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self.is_running:
            return
        self._reap()
        plan = {
            "command": [*map(str, self.command())], "folder": str(self.folder), "user": self._user,
            "log": str(self.folder / "log"), "last_signal": int(self.last_signal),
        }  # fmt: skip
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, json.dumps(plan)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.pid = int(_stream(self._guardian.stdout).readline())

        def ready() -> bool:
            assert self.is_running, f"{self.name} ended: {self.log()[-2000:]}"
            return self.is_ready()

        self._until("answers", ready)

    @property
    def is_running(self) -> bool:
        return self._guardian is not None and self._guardian.poll() is None

    def stop(self) -> None:
        """Stop it in order: what it holds is kept."""
        self._end(lambda: send(self.stop_signal, [self.pid]))

    def kill(self) -> None:
        """End it and its children as a power cut does: none of them does anything more."""

        def end() -> None:
            send(signal.SIGSTOP, [self.pid])  # it has no more children after this
            members = family(self.pid)
            send(signal.SIGKILL, members)
            self._until("is gone", lambda: not any(map(family, members[1:])))

        self._end(end)

    def pause(self) -> None:
        """Let it and its children hang: connections stay open, and nothing answers."""
        send(signal.SIGSTOP, [self.pid])
        self._until("is paused", lambda: _is_stopped(self.pid))
        members = family(self.pid)
        send(signal.SIGSTOP, members)
        self._until("is paused", lambda: all(map(_is_stopped, members)))

    def resume(self) -> None:
        """Let it go on where it was paused."""
        send(signal.SIGCONT, family(self.pid)[::-1])

    def log(self) -> str:
        """What it printed since its folder was made."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def close(self) -> None:
        """End it at once and remove its folder."""
        self._end(lambda: (self.resume(), send(self.last_signal, [self.pid])))
        remove(str(self.folder))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _end(self, how: Callable[[], object]) -> None:
        if self.is_running:
            how()
            assert self._guardian is not None
            try:
                self._guardian.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                send(signal.SIGKILL, family(self.pid))
                self._reap()
                raise
        self._reap()

    def _reap(self) -> None:
        if self._guardian is not None:
            _stream(self._guardian.stdin).close()
            _stream(self._guardian.stdout).close()
            self._guardian.wait(_PATIENCE)
            self._guardian = None

    def _until(self, what: str, look: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not look():
            assert time.monotonic() < deadline, f"waited {_PATIENCE:g} s until {self.name} {what}"
            time.sleep(_LOOK_SECONDS)


def _is_stopped(pid: int) -> bool:
    """True when no signal but SIGCONT and SIGKILL gets anything out of it, or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("latin-1")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "TtZX"


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
