"""A reader: paths in, candidates out; no keys, no database, no network, no other files.

Started by `crew.py` with an empty environment and one socket, as standard input. Standard output
and error lead nowhere: a traceback may hold what was being read.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

from scanner.git.confinement import confine, die_with, limit_time
from scanner.git.wire import dump_candidate, load_ruleset, receive, send
from scanner.matcher.engine import Matcher
from scanner.sources.files import FileReader, Reading


def serve(channel: socket.socket) -> None:
    """Answer requests in their order until the parent is gone."""
    start, _ = receive(channel)
    die_with(start["parent"])
    matcher = Matcher(
        load_ruleset(start["patterns"]),
        cache_dir=Path(start["cache_dir"]),
        bound=frozenset(start["bound"]),
    )
    matcher.scan(b"ready")  # what is made on first use must be made while files may be opened
    reader = FileReader(matcher, start["most_bytes"])
    send(channel, confine(start["memory_bytes"], start["targets"]))
    while True:
        try:
            request, descriptors = receive(channel)
        except EOFError:
            return
        limit_time(start["timeout"])
        send(channel, _dump(_read(reader, request, descriptors)))


def _read(reader: FileReader, request: dict[str, Any], descriptors: list[int]) -> Reading:
    if not descriptors:
        return reader.read(request["paths"], follow=request["follow"])
    with os.fdopen(descriptors[0], "rb") as stream:
        return reader.read_stream(stream)


def _dump(reading: Reading) -> dict[str, Any]:
    return {
        "counts": [reading.files, reading.bytes, reading.unpacked],
        "partial": reading.partial,
        "found": [
            [
                *(index, spot.line, spot.column, spot.member, spot.allowed),
                *dump_candidate(spot.candidate),
            ]
            for index, spot in reading.found
        ],
    }


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    serve(socket.socket(fileno=0))
