"""`patrol up`: web, worker, beat and mail catcher as child processes, stopped in order."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import httpx2

from scanner.embedded.ports import check_port_free
from scanner.errors import ConfigurationError
from scanner.keyring import prepare_data_dir
from scanner.settings import Settings
from scanner.text import printable

_PR_SET_PDEATHSIG = 1
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_ORDER = ("web", "beat", "worker", "mail")


def die_with_parent(parent: int) -> None:
    """Ask Linux to stop this process when `parent`, which started it, is gone, however it went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it went before we could ask
            signal.raise_signal(signal.SIGTERM)


class Supervisor:
    """Runs Patrol's processes; a context manager that leaves none behind.

    `extra` is added to their environment. The web process must answer within `start_seconds`; one
    that does not stop within `stop_seconds` of being told to is killed.
    """

    def __init__(
        self,
        settings: Settings,
        extra: dict[str, str] | None = None,
        *,
        start_seconds: float = _START_SECONDS,
        stop_seconds: float = _STOP_SECONDS,
    ) -> None:
        self._settings = settings
        supervised = {"PATROL_SUPERVISED": str(os.getpid())}
        self._environment = {**os.environ, **(extra or {}), **supervised}
        self._start_seconds, self._stop_seconds = start_seconds, stop_seconds
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._log_starts: dict[str, int] = {}
        self._logs = settings.data_dir / "logs"

    def __enter__(self) -> Supervisor:
        settings = self._settings
        prepare_data_dir(settings.data_dir)
        prepare_data_dir(self._logs)
        check_port_free(settings.host, settings.port, "PATROL_PORT")
        roles = ["web", "worker", "beat"]
        if settings.smtp_url is None:
            check_port_free("127.0.0.1", settings.smtp_port, "PATROL_SMTP_PORT")
            check_port_free("127.0.0.1", settings.mail_port, "PATROL_MAIL_PORT")
            roles.append("mail")
        try:
            for role in roles:
                self._start(role)
            self._wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self, role: str) -> None:
        with (self._logs / f"{role}.log").open("ab") as log:
            self._log_starts[role] = log.tell()
            # A session of its own: Ctrl-C reaches the supervisor alone, which stops them in order.
            self._children[role] = subprocess.Popen(
                [sys.executable, "-m", "scanner.cli", role],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self._start_seconds
        host = self._settings.host
        address = f"http://{f'[{host}]' if ':' in host else host}:{self._settings.port}/readyz"
        while True:
            self.check()
            with suppress(httpx2.TransportError):
                if httpx2.get(address, timeout=1, trust_env=False).status_code == 200:
                    return
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"The web process is not ready after {self._start_seconds:g} s; "
                    f"see {self._logs}/web.log"
                )
            time.sleep(0.05)  # polling another process: there is no event to wait for

    def check(self) -> None:
        """Raise when a child ended by itself."""
        for role, child in self._children.items():
            status = child.poll()
            if status is not None:
                how = f"signal {-status}" if status < 0 else f"exit code {status}"
                raise ConfigurationError(
                    f"The {role} process ended ({how}): {self._last_words(role)}"
                )

    def _last_words(self, role: str) -> str:
        with (self._logs / f"{role}.log").open("rb") as log:
            log.seek(self._log_starts[role])  # not what an earlier run said
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        return printable(_said(lines[-1])) if lines else "it said nothing"

    def wait(self) -> None:
        """Stay until a child ends or a signal interrupts."""
        while True:
            self.check()
            time.sleep(0.5)

    def stop(self) -> None:
        """Stop all children, the intake first, so that accepted work is finished."""
        for role in _ORDER:
            child = self._children.pop(role, None)
            if child is None:
                continue
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(self._stop_seconds)
            with suppress(ProcessLookupError):  # nothing is left of its session, as it should be
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _said(line: str) -> str:
    """A log line's event and reason; a line that is none (a start that failed) as it is."""
    try:
        fields = json.loads(line)
        return ": ".join(
            str(fields[name]) for name in ("event", "error", "reason") if name in fields
        )
    except (ValueError, TypeError):
        return line


def mail_directory(settings: Settings) -> Path:
    """Where the catcher keeps its messages."""
    return settings.data_dir / "mail"
