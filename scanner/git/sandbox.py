"""Inspecting packs in a child process that holds no keys (threat 3)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from scanner.errors import InspectionError, InspectionTooLargeError, MalformedPackError
from scanner.git.faults import Fault
from scanner.git.pack import Bounds
from scanner.git.wire import (
    MOST_LARGE,
    InspectionLoader,
    dump_ruleset,
    load_ids,
    receive,
    send,
)
from scanner.matcher.pattern import Ruleset
from scanner.model import Inspection
from scanner.ports import KnownBlobs, Pack

_START_SECONDS = 60.0
_MEMORY_BYTES = 4 << 30  # of address space, the mapped pack included


class SandboxInspector:
    """A long-lived child that is replaced when it dies or overruns. Satisfies `ports.Inspector`.

    Safe to share between threads: one pack at a time. After a fork the new process starts a child
    of its own. `timeout` is seconds a pack; `bound` as for `Matcher`.
    """

    def __init__(
        self,
        ruleset: Ruleset,
        *,
        bound: frozenset[str] = frozenset(),
        cache_dir: Path | None = None,
        timeout: float = 60.0,
        bounds: Bounds | None = None,
        memory_bytes: int = _MEMORY_BYTES,
    ) -> None:
        self._start_message: dict[str, Any] = {
            "patterns": dump_ruleset(ruleset),
            "cache_dir": str(cache_dir.resolve()) if cache_dir else None,
            "bound": sorted(bound),
            "bounds": asdict(bounds or Bounds()),
            "memory_bytes": memory_bytes,
            "timeout": timeout,
        }
        self._loader = InspectionLoader(ruleset)
        self._timeout = timeout
        self._reset()

    @property
    def has_network(self) -> bool | None:
        """Whether the child could open connections; None before it was started."""
        return not self._reached["no_network"] if self._reached else None

    def describe(self) -> Mapping[str, bool]:
        """Start the child if need be and tell what it gave up: "no_network", "no_files",
        "no_new_privileges"; each depends on the kernel and on the container."""
        self.warm()
        return dict(self._reached)

    @property
    def pid(self) -> int | None:
        """The child's process id, if it was started."""
        return self._child.pid if self._child else None

    def warm(self) -> None:
        """Start the child now, so that the first push does not wait for it."""
        self._own()
        with self._lock:
            self._ensure()

    def inspect(
        self, pack: Pack, hash_size: int = 20, known: KnownBlobs | None = None
    ) -> Inspection:
        """Return every candidate of the pack with its places. `known` is asked here, not by the
        child, and what it takes is no time of the child's.

        Errors: `MalformedPackError`; `InspectionTooLargeError` when it overran its time or memory;
        `InspectionError` when the child died.
        """
        if pack.size == 0:
            return Inspection(partial=pack.partial)
        self._own()
        with self._lock:
            answer = self._ask(pack, hash_size, known)
            try:
                inspection = self._read(answer, pack)
            except (ValueError, KeyError, TypeError):
                self._stop()
                raise InspectionError(
                    "The process that reads packs answered nonsense; it was replaced."
                ) from None
        return replace(inspection, partial=(*pack.partial, *inspection.partial))

    def close(self) -> None:
        """Stop the child. A later call starts another one."""
        self._own()
        with self._lock:
            self._stop()

    def _reset(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        # A child dies with the thread that started it, so that thread must live as long as we do.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="sandbox-starter")
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._reached: dict[str, bool] = {}

    def _own(self) -> None:
        """After a fork, lock, thread and child are the other process's."""
        if self._owner != os.getpid():
            if self._channel is not None:
                self._channel.close()
            if self._child is not None:
                self._child.returncode = 0  # not ours to wait for
            self._reset()

    def _ask(self, pack: Pack, hash_size: int, known: KnownBlobs | None) -> Any:
        channel = self._ensure()
        request = {"size": pack.size, "hash_size": hash_size, "may_ask": known is not None}
        until = time.monotonic() + self._timeout
        left = MOST_LARGE
        try:
            channel.settimeout(self._timeout)
            send(channel, request, [pack.file.fileno()])
            while True:
                answer, _ = receive(channel, until - time.monotonic())
                if known is None or not isinstance(answer, dict) or "asked" not in answer:
                    return answer
                asked = load_ids(answer["asked"], left)
                left -= len(asked)
                began = time.monotonic()
                found = known(asked)
                until += time.monotonic() - began
                send(channel, [index for index, one in enumerate(asked) if one in found])
        except TimeoutError:
            self._stop()
            raise InspectionTooLargeError(
                f"Reading the pack took longer than {self._timeout:g} seconds."
            ) from None
        except (OSError, EOFError, ValueError):
            self._stop()
            raise InspectionError("The process that reads packs died of this one.") from None
        except BaseException:
            self._stop()  # it waits for an answer that will not come
            raise

    def _read(self, answer: Any, pack: Pack) -> Inspection:
        if "malformed" in answer:
            raise MalformedPackError(Fault[answer["malformed"]])
        if "out_of_memory" in answer:
            self._stop()
            raise InspectionTooLargeError("The pack needs more memory than its reader may have.")
        # What a pack says of itself is ours to read: no child has seen more objects than that.
        count = int.from_bytes(os.pread(pack.file.fileno(), 4, 8), "big")
        return self._loader.load(answer["inspection"], count)

    def _ensure(self) -> socket.socket:
        if self._channel is not None and self._child is not None and self._child.poll() is None:
            return self._channel
        self._stop()
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = self._starter.submit(_start, theirs.fileno()).result()
        self._channel = ours
        try:
            ours.settimeout(_START_SECONDS)
            send(ours, {**self._start_message, "parent": os.getpid()})
            reached, _ = receive(ours, _START_SECONDS)
        except (OSError, EOFError, ValueError):
            self._stop()
            raise InspectionError("The process that reads packs does not start.") from None
        self._reached = {str(name): bool(value) for name, value in reached.items()}
        return ours

    def _stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._channel = self._child = None


def _start(channel: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-s", "-P", "-m", "scanner.git.sandbox_child"],
        stdin=channel,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "LANG": "C.UTF-8"},
        start_new_session=True,
    )
