"""Signs of life of this machine's own processes: a file each, in the data directory.

The database knows that some worker lives, and which queues are heard; whether the worker of this
container does, only its own signs say. They stand below the host's name, which every container has
of its own, so that a data directory may be shared. A sign's time of change is the moment until
which silence is no cause for worry, and its content the process that gave it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from scanner.errors import FinalError

log = logging.getLogger(__name__)

_SILENT_SECONDS = 30.0
_START_SECONDS = 60.0
_GRACE_SECONDS = 10.0  # from the end of a long step to the next report


class Sign:
    """The sign of one process, which gives it itself."""

    def __init__(self, folder: Path, role: str, name: str) -> None:
        self._file = _file(folder, role, name)
        self._well_until = 0.0

    def well(self) -> None:
        """It works, and will say so again within half a minute."""
        self._well_until = time.time() + _SILENT_SECONDS
        self._give(self._well_until)

    def busy_until(self, moment: float) -> None:
        """It may be silent until that moment of the machine's monotonic clock; 0: no longer."""
        still = moment - monotonic() if moment else 0.0
        self._give(max(self._well_until, time.time() + still + _GRACE_SECONDS))

    def _give(self, until: float) -> None:
        try:
            _write(self._file, until)
        except OSError as error:  # its work goes on, and who asks for the sign is told the worst
            log.warning("the sign of life cannot be written: %s", error.strerror)


def folder_of(data_dir: Path) -> Path:
    """Where this machine's signs are."""
    return data_dir / "alive" / socket.gethostname().replace("/", "_")


def begin(folder: Path, role: str, names: Iterable[str]) -> None:
    """Expect these processes of a role from now on, and no others."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.glob(f"{role}.*"):
        left.unlink(missing_ok=True)
    for name in names:
        _write(_file(folder, role, name), time.time() + _START_SECONDS)


def require_alive(folder: Path, role: str) -> None:
    """Errors: `FinalError` when a process of that role is missing, or has been silent for long."""
    files = sorted(folder.glob(f"{role}.*"))
    if not files:
        raise FinalError(f"No {role} was started here.")
    for file in files:
        name = file.name.replace(".", " ", 1)
        try:
            process, until = int(file.read_text()), file.stat().st_mtime
        except (FileNotFoundError, ValueError):
            raise FinalError(f"{name} is starting.") from None
        if not _lives(process):
            raise FinalError(f"{name} has ended.")
        if time.time() > until:
            raise FinalError(f"{name} has been silent since {round(time.time() - until)} seconds.")


def _file(folder: Path, role: str, name: str) -> Path:
    return folder / f"{role}.{name}"


def _write(file: Path, until: float) -> None:
    if not file.exists() or file.read_text() != str(os.getpid()):
        file.write_text(str(os.getpid()))
    os.utime(file, (until, until))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, so it is there
        return True
    try:
        state = Path(f"/proc/{process}/stat").read_text("latin-1").rpartition(")")[2].split()[0]
    except OSError:  # not on Linux, or it has ended this moment: the next question will tell
        return True
    return state != "Z"  # which has ended, and its parent has not looked yet
