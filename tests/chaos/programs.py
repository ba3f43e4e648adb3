"""Patrol's own processes: started, killed, paused, with clocks that go wrong, and watched over."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.servers.guardian import family, send
from tests.servers.present import place_of

ROOT = Path(__file__).resolve().parents[2]
_CLOCK = Path(__file__).with_name("clock.c")
_LOOK_SECONDS = 0.25
_TAIL = 2_000  # bytes of a log that tell why a process ended


def build_clock(folder: Path) -> Path | None:
    """Compile what gives a process a clock of its own; None: there is no C compiler."""
    compiler = place_of("tcc")
    if compiler is None:
        return None
    built = folder / "clock.so"
    subprocess.run(
        [
            compiler,
            "-shared",
            "-fPIC",
            "-nostdlib",
            "-o",
            built,
            Path(__file__).with_name("clock.c"),
        ],
        check=True,
    )
    return built


class Program:
    """One process with all that it starts; its clock can be set apart from the machine's."""

    def __init__(
        self,
        name: str,
        arguments: Iterable[str],
        environment: Mapping[str, str],
        folder: Path,
        clock: Path | None,
    ) -> None:
        self.name, self._arguments = name, tuple(arguments)
        self._clock = folder / f"{name}.clock"
        self.log = folder / f"{name}.log"
        self._environment = dict(environment)
        if clock is not None:
            self._environment |= {"LD_PRELOAD": str(clock), "CHAOS_CLOCK": str(self._clock)}
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self.is_wanted = False
        self.seen: dict[int, str] = {}  # every process it was ever seen to be: pid, start time
        self.skew(0)

    def start(self) -> None:
        """Start it, unless it runs: two may want to at once, who killed it and who watches it."""
        with self._starting, self.log.open("ab") as log:
            if not self.has_ended:
                return
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scanner.cli", *self._arguments],
                env=self._environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            self.is_wanted = True

    def kill(self) -> None:
        """kill -9, its children too; nobody starts it again until somebody does."""
        self.is_wanted = False
        members = self.members()
        send(signal.SIGKILL, members)
        if self._process is not None:
            self._process.wait()

    def kill_a_child(self) -> None:
        """As when the system runs out of memory: one of its children goes."""
        children = self.members()[1:]
        if children:
            send(signal.SIGKILL, children[:1])

    def pause(self) -> None:
        send(signal.SIGSTOP, self.members())

    def resume(self) -> None:
        send(signal.SIGCONT, self.members())

    def stop(self, seconds: float) -> bool:
        """Stop it in order; False: it had to be killed."""
        self.is_wanted = False
        if self._process is None or self._process.poll() is not None:
            return True
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
            return True
        self.kill()
        return False

    def skew(self, seconds: int) -> None:
        """Let its clock go wrong by so much from now on; 0: right again."""
        with self._clock.open("r+b" if self._clock.exists() else "wb") as file:
            file.write(struct.pack("q", seconds * 1_000_000_000))  # in place: it is mapped

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def members(self) -> list[int]:
        """Its processes, itself first."""
        if self._process is None:
            return []
        members = family(self._process.pid)
        for pid in members:
            self.seen[pid] = started(pid)
        return members

    def left(self) -> list[str]:
        """What of it is still there."""
        return [
            f"{self.name}: process {pid}"
            for pid, when in self.seen.items()
            if when and started(pid) == when and family(pid)
        ]

    def end(self) -> str:
        """How it ended, and its last words."""
        code = None if self._process is None else self._process.returncode
        words = ""
        with suppress(OSError):
            words = self.log.read_bytes()[-_TAIL:].decode("utf-8", "replace")
        return f"{words}\nexit code {code}"


def started(pid: int) -> str:
    """When a process was started, in the kernel's ticks; "" when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("latin-1")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


class Warden:
    """Starts a program again when it ends by itself, as systemd or a container's runtime does."""

    def __init__(self, programs: Iterable[Program]) -> None:
        self._programs = tuple(programs)
        self.restarts: list[tuple[str, str]] = []  # (name, its last words)
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="warden")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._enough.wait(_LOOK_SECONDS):
            for program in self._programs:
                program.members()
                if program.is_wanted and program.has_ended:
                    self.restarts.append((program.name, program.end()))
                    if not self._enough.wait(1):
                        program.start()


def environment(folder: Path, settings: Mapping[str, object]) -> dict[str, str]:
    """What a program of this checkout runs with, and nothing of this machine's own."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        **{f"PATROL_{name.upper()}": str(value) for name, value in settings.items()},
    }
