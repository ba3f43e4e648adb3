"""`patrol up`: web, worker, beat and mail catcher as child processes, stopped in order."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import httpx2

from scanner.embedded.ports import check_port_free
from scanner.errors import ConfigurationError
from scanner.settings import Settings, prepare_data_dir

_PR_SET_PDEATHSIG = 1
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_ORDER = ("web", "beat", "worker", "mail")


def die_with_parent() -> None:
    """Ask Linux to stop this process when its parent is gone, however it went."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Supervisor:
    """Runs Patrol's processes; a context manager that leaves none behind."""

    def __init__(self, settings: Settings, extra: dict[str, str] | None = None) -> None:
        self._settings = settings
        self._environment = {**os.environ, **(extra or {}), "PATROL_SUPERVISED": "1"}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
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
        deadline = time.monotonic() + _START_SECONDS
        address = f"http://{self._settings.host}:{self._settings.port}/readyz"
        while True:
            self.check()
            try:
                if httpx2.get(address, timeout=1, trust_env=False).status_code == 200:
                    return
            except httpx2.TransportError:
                if time.monotonic() > deadline:
                    raise ConfigurationError(
                        f"The web process did not start; see {self._logs}/web.log"
                    ) from None
            time.sleep(0.05)  # polling another process: there is no event to wait for

    def check(self) -> None:
        """Raise when a child ended by itself."""
        for role, child in self._children.items():
            if child.poll() is not None:
                tail = (self._logs / f"{role}.log").read_text(errors="replace").strip()
                last = tail.splitlines()[-1] if tail else "it said nothing"
                raise ConfigurationError(f"The {role} process ended: {last}")

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
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def mail_directory(settings: Settings) -> Path:
    """Where the catcher keeps its messages."""
    return settings.data_dir / "mail"
