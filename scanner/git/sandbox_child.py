"""The parsing child: hostile bytes in, candidates out; no keys, no database, no network.

Started by `sandbox.py` with an empty environment and one socket, as standard input. Standard output
and error lead nowhere: a traceback may hold what was being read.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from scanner.errors import MalformedPackError
from scanner.git.confinement import confine, die_with, limit_time
from scanner.git.faults import Fault
from scanner.git.inspect import inspect_pack
from scanner.git.pack import Bounds
from scanner.git.wire import dump_inspection, load_ruleset, receive, send
from scanner.matcher.engine import Matcher


def serve(channel: socket.socket) -> None:
    """Answer requests until the parent is gone."""
    start, _ = receive(channel)
    die_with(start["parent"])
    matcher = Matcher(
        load_ruleset(start["patterns"]),
        cache_dir=Path(start["cache_dir"]) if start["cache_dir"] else None,
        bound=frozenset(start["bound"]),
    )
    matcher.scan(b"ready")  # what is made on first use must be made while files may be opened
    bounds = Bounds(**start["bounds"])
    send(channel, confine(start["memory_bytes"]))
    while True:
        try:
            request, descriptors = receive(channel)
        except EOFError:
            return
        limit_time(start["timeout"])
        try:
            send(channel, _answer(channel, descriptors[0], request, matcher, bounds))
        finally:
            os.close(descriptors[0])


def _answer(
    channel: socket.socket,
    descriptor: int,
    request: dict[str, Any],
    matcher: Matcher,
    bounds: Bounds,
) -> dict[str, Any]:
    def ask(object_ids: Sequence[str]) -> Collection[str]:
        send(channel, {"asked": object_ids})
        return [object_ids[index] for index in receive(channel)[0]]

    known = ask if request["may_ask"] else None
    try:
        with mmap.mmap(descriptor, request["size"], access=mmap.ACCESS_READ) as pack:
            inspection = inspect_pack(pack, matcher, bounds, request["hash_size"], known)
    except MalformedPackError as error:
        return {"malformed": Fault(str(error)).name}
    except MemoryError:
        return {"out_of_memory": True}
    return {"inspection": dump_inspection(inspection)}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    serve(socket.socket(fileno=0))
