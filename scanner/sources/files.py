"""Files on this machine: a folder, one file, or bytes from a pipe."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from scanner.errors import ConfigurationError
from scanner.matcher.position import Scans, spots
from scanner.model import Inspection, LocatedCandidate, ObjectKind, Place

MOST_BYTES = 128 << 20  # a larger file is named in `partial`, not read


def scan_folder(root: Path, matcher: Scans, most_bytes: int = MOST_BYTES) -> Iterator[Inspection]:
    """Yield one inspection for every regular file at or below `root`, by name.

    Links are not followed, and git's own folder is left out (`scan git` reads it). What cannot be
    read is named in `partial`. Errors: `ConfigurationError` when there is no `root`.
    """
    if not root.exists():
        raise ConfigurationError(f"{root} does not exist.")
    return (_scan_file(path, matcher, most_bytes) for path in _walk(root))


def scan_stream(stream: BinaryIO, matcher: Scans, most_bytes: int = MOST_BYTES) -> Inspection:
    """Match what `stream` holds, up to `most_bytes`; what lies beyond is named in `partial`."""
    data = stream.read(most_bytes + 1)
    partial = (f"-: only the first {most_bytes} bytes were read",) if data[most_bytes:] else ()
    return _inspect("-", data[:most_bytes], matcher, partial)


def _walk(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != ".git")
        yield from (Path(folder) / name for name in sorted(names))


def _scan_file(path: Path, matcher: Scans, most_bytes: int) -> Inspection:
    try:
        # Not blocking and not following: a pipe or a link may take a regular file's place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return Inspection()
            data = file.read(most_bytes + 1)
    except OSError as error:
        if path.is_symlink() or path.is_socket():
            return Inspection()
        return Inspection(partial=(f"{path}: {error.strerror}",))
    if len(data) > most_bytes:
        return Inspection(partial=(f"{path}: larger than {most_bytes} bytes",))
    return _inspect(str(path), data, matcher)


def _inspect(path: str, data: bytes, matcher: Scans, partial: tuple[str, ...] = ()) -> Inspection:
    found = tuple(
        LocatedCandidate(
            spot.candidate,
            Place("", ObjectKind.BLOB, path, line=spot.line, column=spot.column),
        )
        for spot in spots(data, matcher.scan(data))
    )
    return Inspection(found, 1, 1, len(data), len(data), partial)
