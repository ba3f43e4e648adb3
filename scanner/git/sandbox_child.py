"""The parsing child: hostile bytes in, candidates out; no keys, no database, no network.

Started by `sandbox.py` with an empty environment and one socket, on file descriptor 0.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import socket
from pathlib import Path

from scanner.errors import MalformedPackError
from scanner.git.inspect import inspect_pack
from scanner.git.pack import Bounds
from scanner.git.wire import dump_inspection, load_ruleset, receive, send
from scanner.matcher.engine import Matcher

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
_MEMORY = 8 << 30  # bytes of address space; Hyperscan and the pack are mapped into it


def confine() -> bool:
    """Give up what parsing does not need; True when the network is out of reach too."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    # Containers often forbid user namespaces; the caller reports what was reached.
    return bool(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def serve(channel: socket.socket) -> None:
    """Answer requests until the parent is gone."""
    start, _ = receive(channel)
    matcher = Matcher(
        load_ruleset(start["patterns"]),
        cache_dir=Path(start["cache_dir"]) if start["cache_dir"] else None,
        bound=frozenset(start["bound"]),
    )
    isolated = confine()
    send(channel, {"ready": True, "network": not isolated})
    while True:
        try:
            request, (descriptor,) = receive(channel)
        except EOFError:
            return
        try:
            with mmap.mmap(descriptor, request["size"], access=mmap.ACCESS_READ) as pack:
                view = memoryview(pack)
                try:
                    inspection = inspect_pack(view, matcher, Bounds(), request["hash_size"])
                finally:
                    view.release()
            send(channel, {"inspection": dump_inspection(inspection)})
        except MalformedPackError as error:
            send(channel, {"malformed": str(error)})
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    serve(socket.socket(fileno=0))
