"""Files on this machine, and bytes from a pipe: read and examined one after the other."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from scanner.examine import examine
from scanner.matcher.position import Scans, Spot
from scanner.sources.walk import MOST_BYTES

_MOST_FOUND = 200_000  # in one file; further ones are counted
_ROOM = 1 << 20  # what is always kept to read into: fresh pages cost more than copying
_KEPT = 16 << 20  # what is kept once a file needed it
# Not blocking: a pipe may have taken the file's place since it was listed.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class Reading:
    """What reading some files gave. A file is named by its place among those that were asked for:
    whoever asked knows its path, and need not believe the reader."""

    found: list[tuple[int, Spot]] = field(default_factory=list)
    partial: list[tuple[int, str]] = field(default_factory=list)  # (file, reason)
    files: int = 0
    bytes: int = 0
    unpacked: int = 0  # bytes that came out of archives in them


class FileReader:
    """Reads files into room that it uses again. Not to be shared between threads.

    A file of more than `most_bytes` is not read.
    """

    def __init__(self, matcher: Scans, most_bytes: int = MOST_BYTES) -> None:
        self._matcher = matcher
        self._most = most_bytes
        self._room = memoryview(bytearray(_ROOM))

    def read(self, paths: Sequence[str], *, follow: bool = False) -> Reading:
        """Read and examine regular files; `follow`: a path may itself be a link."""
        reading = Reading()
        flags = _FLAGS if follow else _FLAGS | os.O_NOFOLLOW
        for index, path in enumerate(paths):
            try:
                descriptor = os.open(path, flags)
            except OSError as error:
                reading.partial.append((index, str(error.strerror)))
                continue
            try:
                self._read(reading, index, descriptor)
            except OSError as error:
                reading.partial.append((index, str(error.strerror)))
            except MemoryError:
                reading.partial.append((index, "needs more memory than its reader may have"))
            finally:
                os.close(descriptor)
        return reading

    def read_stream(self, stream: BinaryIO) -> Reading:
        """Examine what `stream` holds, up to the bound."""
        reading = Reading()
        data = stream.read(self._most + 1)
        if len(data) > self._most:
            reading.partial.append((0, f"only the first {self._most} bytes were read"))
        self._examine(reading, 0, memoryview(data)[: self._most])
        return reading

    def _read(self, reading: Reading, index: int, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            reading.partial.append((index, "is no regular file any more"))
            return
        size = status.st_size
        room = self._room
        if size >= len(room):
            if size > self._most:
                reading.partial.append((index, f"larger than {self._most} bytes"))
                return
            room = memoryview(bytearray(size + 1))
            if size < _KEPT:
                self._room = room
        count = os.preadv(descriptor, [room], 0)
        if count != size:  # it grew, it shrank, or it is of a kind that does not know its size
            room, count = self._rest(descriptor, room, count)
        if count > self._most:
            reading.partial.append((index, f"larger than {self._most} bytes"))
            return
        self._examine(reading, index, room[:count])

    def _rest(self, descriptor: int, room: memoryview, count: int) -> tuple[memoryview, int]:
        """Read on to the end, or until more than the bound is there."""
        while count <= self._most:
            if count == len(room):
                larger = memoryview(bytearray(2 * count))
                larger[:count] = room
                room = larger
            got = os.preadv(descriptor, [room[count:]], count)
            if not got:
                break
            count += got
        return room, count

    def _examine(self, reading: Reading, index: int, data: memoryview) -> None:
        reading.files += 1
        reading.bytes += len(data)
        examined = examine(data, self._matcher, _MOST_FOUND)
        reading.unpacked += examined.unpacked
        if examined.spots:
            reading.found += [(index, spot) for spot in examined.spots]
        if examined.met or examined.dropped:
            reading.partial += [(index, reason) for reason in examined.partial]
