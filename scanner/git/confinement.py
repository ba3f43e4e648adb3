"""What the parsing child gives up before it sees hostile bytes. Linux only, best effort, reported.

Sources: prctl(2), unshare(2), setrlimit(2), landlock(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Sequence

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
# The same numbers on every architecture: they came after the tables were unified.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_VERSION = 1  # flag: ask for the version instead
_LANDLOCK_FILES = (1 << 13) - 1  # every access right to files that version 1 knows
_LANDLOCK_BENEATH = 1  # kind of rule: about what lies at or below an open file
_LANDLOCK_READ_FILE = 1 << 2
_LANDLOCK_TCP = 3  # bind and connect, from version 4


def die_with(parent: int) -> None:
    """Ask for death when the thread that started us ends; leave when it is too late to ask."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(0)


def confine(memory_bytes: int, readable: Sequence[str] = ()) -> dict[str, bool]:
    """Give up privileges, memory beyond the bound, written files, network and file system, except
    for reading files at or below the `readable` paths.

    Returns which of "no_new_privileges", "no_network" and "no_files" were reached: containers often
    forbid user namespaces, and old kernels have no Landlock. Limits on resources always hold.
    """
    libc = _libc()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    # Nothing may be written, so that a child gone bad cannot leave a poisoned pattern cache.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    privileges = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    network = libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWNET) == 0
    return {
        "no_new_privileges": privileges,
        "no_network": network,
        "no_files": privileges and _landlock(libc, readable),
    }


def limit_time(seconds: float) -> None:
    """Let the kernel end this process after that much more processor time, even if its parent, who
    measures the real time, is gone."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    most = round(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def _landlock(libc: ctypes.CDLL, readable: Sequence[str]) -> bool:
    """Forbid opening any other file and any TCP connection."""
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    if version < 1:
        return False
    rules = _Ruleset(_LANDLOCK_FILES, _LANDLOCK_TCP if version >= 4 else 0)
    size = ctypes.sizeof(rules) if version >= 4 else ctypes.sizeof(ctypes.c_uint64)
    ruleset = libc.syscall(
        _LANDLOCK_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    if ruleset < 0:
        return False
    for path in readable:
        with contextlib.suppress(OSError):  # what is gone by now need not be allowed
            _allow(libc, ruleset, os.open(path, os.O_PATH | os.O_CLOEXEC))
    done = libc.syscall(_LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)
    return bool(done == 0)


def _allow(libc: ctypes.CDLL, ruleset: int, place: int) -> None:
    rule = _Beneath(_LANDLOCK_READ_FILE, place)
    libc.syscall(
        *(_LANDLOCK_ADD_RULE, ctypes.c_int(ruleset), _LANDLOCK_BENEATH),
        *(ctypes.byref(rule), ctypes.c_uint32(0)),
    )
    os.close(place)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc
