"""Processes forked from one that has loaded everything, watched, replaced, and stopped in order.

Forking shares the memory of all that was imported and compiled. The parent stays a mere watcher: it
has no threads, no connections, and does no work that could fail.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import NoReturn

from scanner.embedded.supervisor import die_with_parent
from scanner.errors import PatrolError, name_of

log = logging.getLogger(__name__)

_PR_SET_NAME, _NAME_BYTES = 15, 15
_LOOK_SECONDS = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds before one that failed is started again
_LONG_LIFE = 60.0  # one that lived so long did not fail at its start
_MERCY_SECONDS = 5.0  # beyond the time they were given to stop
_STOP = (signal.SIGTERM, signal.SIGINT)
_HANDLED = (*_STOP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGALRM)


class BusyUntil:
    """One moment that a process and its parent both see: until when it may be busy; 0: it is idle.

    By the machine's monotonic clock, which all its processes share.
    """

    _FORM = struct.Struct("d")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._FORM.size)

    def __call__(self, moment: float) -> None:
        """Set it."""
        self._FORM.pack_into(self._memory, 0, moment)

    @property
    def is_over(self) -> bool:
        """True when it should have ended by now."""
        moment: float = self._FORM.unpack_from(self._memory)[0]
        return 0 < moment < monotonic()


Run = Callable[[BusyUntil], int]


@dataclass
class _Member:
    name: str
    run: Run
    busy_until: BusyUntil = field(default_factory=BusyUntil)
    pid: int | None = None
    started: float = 0.0
    start_at: float = 0.0
    pause: float = _FIRST_PAUSE


class Fleet:
    """Runs each member in a process of its own until told to stop.

    A member returns its exit code: 0 is a wish to be replaced by a fresh one. One that is busy for
    longer than it said it would be is killed and replaced. SIGTERM or SIGINT stops them in order,
    within `stop_seconds`; a second one, or SIGQUIT, kills them: what they held comes back when its
    lease ends.
    """

    def __init__(self, members: Mapping[str, Run], *, stop_seconds: float) -> None:
        self._members = [_Member(name, run) for name, run in members.items()]
        self._stop_seconds = stop_seconds
        self._stop_by: float | None = None

    def run(self) -> None:
        """Start all, and stay until they have stopped."""
        # What is loaded now is never garbage: the collector must not touch, and so copy, its pages.
        gc.freeze()
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        # Not sigtimedwait: when this process was stopped for a while, as by SIGSTOP or a suspended
        # machine, CPython returns a signal that nobody sent (3.11 to 3.14).
        signal.setitimer(signal.ITIMER_REAL, _LOOK_SECONDS, _LOOK_SECONDS)
        while True:
            self._start_due()
            signalled = signal.sigwait(_HANDLED)
            if signalled not in (signal.SIGCHLD, signal.SIGALRM):
                self._stop(signalled)
            self._reap()
            self._kill_overdue()
            if self._stop_by is not None and not any(one.pid for one in self._members):
                signal.setitimer(signal.ITIMER_REAL, 0)
                return

    def _start_due(self) -> None:
        for member in self._members:
            if member.pid is None and self._stop_by is None and monotonic() >= member.start_at:
                member.busy_until(0)
                member.started = monotonic()
                parent = os.getpid()
                sys.stdout.flush()
                sys.stderr.flush()
                member.pid = os.fork()
                if member.pid == 0:
                    _be(member, parent)

    def _stop(self, signal_number: int) -> None:
        if signal_number in _STOP and self._stop_by is None:
            self._stop_by = monotonic() + self._stop_seconds + _MERCY_SECONDS
            self._signal(signal.SIGTERM)
        else:
            self._stop_by = monotonic()
            self._signal(signal.SIGKILL)

    def _signal(self, signal_number: signal.Signals) -> None:
        for member in self._members:
            if member.pid is not None:
                os.kill(member.pid, signal_number)  # ours until reaped: no other has its id

    def _kill_overdue(self) -> None:
        if self._stop_by is not None and monotonic() > self._stop_by:
            self._signal(signal.SIGKILL)
        for member in self._members:
            if member.pid is not None and member.busy_until.is_over:
                log.error("%s is busy for too long and is killed", member.name)
                os.kill(member.pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                # Also those that others left behind: in a container we are everybody's parent.
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for member in self._members:
                if member.pid == pid:
                    self._ended(member, os.waitstatus_to_exitcode(status))

    def _ended(self, member: _Member, code: int) -> None:
        member.pid = None
        lived = monotonic() - member.started
        if self._stop_by is not None:
            return
        if code == 0 and lived > _FIRST_PAUSE:
            return  # as it wished
        if lived > _LONG_LIFE:
            member.pause = _FIRST_PAUSE
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        log.error("%s ended (%s); it is started again in %g s", member.name, how, member.pause)
        member.start_at = monotonic() + member.pause
        member.pause = min(member.pause * 2, _LONGEST_PAUSE)


def _take_name(name: str) -> None:
    """Let `ps` and `top` show who is who."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, f"patrol:{name}".encode()[:_NAME_BYTES], 0, 0, 0)


def _be(member: _Member, parent: int) -> NoReturn:
    """Be the member: nothing of the parent may run here, whatever happens."""
    code = 1
    try:
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        die_with_parent(parent)
        _take_name(member.name)
        code = member.run(member.busy_until)
    except PatrolError as error:
        log.error("%s does not start: %s", member.name, error)  # noqa: TRY400 (a sentence is enough)
    except Exception as error:
        log.critical("%s ends: %s", member.name, name_of(error), exc_info=error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
