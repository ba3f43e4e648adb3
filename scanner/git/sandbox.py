"""Inspecting packs in a child process that holds no keys (threat 3)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from scanner.errors import InspectionError, MalformedPackError
from scanner.git.wire import dump_ruleset, load_inspection, receive, send
from scanner.matcher.pattern import Ruleset
from scanner.model import Inspection
from scanner.ports import Pack

_START_SECONDS = 60.0


class SandboxInspector:
    """A long-lived child that is replaced when it dies or overruns. Satisfies `ports.Inspector`."""

    def __init__(
        self,
        ruleset: Ruleset,
        *,
        bound: frozenset[str] = frozenset(),
        cache_dir: Path | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._start_message = {
            "patterns": dump_ruleset(ruleset),
            "cache_dir": str(cache_dir.resolve()) if cache_dir else None,
            "bound": sorted(bound),
        }
        self._known = frozenset(pattern.id for pattern in ruleset.patterns)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._owner = 0
        self.has_network: bool | None = None  # of the child; None before it was started

    def warm(self) -> None:
        """Start the child now, so that the first push does not wait for it."""
        with self._lock:
            self._ensure()

    def inspect(self, pack: Pack, hash_size: int = 20) -> Inspection:
        """Return every candidate of the pack with its places."""
        if pack.size == 0:
            return Inspection()
        with self._lock:
            channel = self._ensure()
            try:
                channel.settimeout(self._timeout)
                request = {"size": pack.size, "hash_size": hash_size}
                send(channel, request, [pack.file.fileno()])
                answer, _ = receive(channel)
            except TimeoutError:
                self._stop()
                raise InspectionError(
                    f"Reading the pack took longer than {self._timeout:g} seconds."
                ) from None
            except (OSError, EOFError, ValueError):
                self._stop()
                raise InspectionError("The process that reads packs died of this one.") from None
        if "malformed" in answer:
            raise MalformedPackError(str(answer["malformed"]))
        try:
            return load_inspection(answer["inspection"], self._known)
        except (KeyError, TypeError, ValueError):
            raise InspectionError("The process that reads packs answered nonsense.") from None

    def close(self) -> None:
        """Stop the child."""
        with self._lock:
            self._stop()

    def _ensure(self) -> socket.socket:
        # After a fork the child is the parent's: two processes must not share one channel.
        if self._owner != os.getpid():
            self._child = self._channel = None
        if self._channel is not None and self._child is not None and self._child.poll() is None:
            return self._channel
        self._stop()
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "scanner.git.sandbox_child"],
                stdin=theirs.fileno(),
                cwd="/",
                env={"PYTHONPATH": str(Path(__file__).parents[2])},
                start_new_session=True,
            )
        self._channel, self._owner = ours, os.getpid()
        try:
            ours.settimeout(_START_SECONDS)
            send(ours, self._start_message)
            answer, _ = receive(ours)
        except (OSError, EOFError):
            self._stop()
            raise InspectionError("The process that reads packs does not start.") from None
        self.has_network = bool(answer["network"])
        return ours

    def _stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._channel = self._child = None
