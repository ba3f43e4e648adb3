"""Files on this machine: a folder, one file, or bytes from a pipe."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from scanner.errors import ConfigurationError
from scanner.examine import examine
from scanner.matcher.position import Scans
from scanner.model import Inspection, LocatedCandidate, ObjectKind, Place

MOST_BYTES = 128 << 20  # a larger file is named in `partial`, not read
_MOST_FOUND = 200_000  # in one file; further ones are counted


def scan_folder(root: Path, matcher: Scans, most_bytes: int = MOST_BYTES) -> Iterator[Inspection]:
    """Yield one inspection for every regular file at or below `root`, by name.

    Links below it are not followed, and git's own folder is left out (`scan git` reads it). What
    cannot be read, folders included, is named in `partial`. Errors: `ConfigurationError` when
    `root` is neither a folder nor a file.
    """
    try:
        mode = root.stat().st_mode
    except FileNotFoundError:
        raise ConfigurationError(f"{root} does not exist.") from None
    except OSError as error:
        raise ConfigurationError(f"{root} cannot be read ({error.strerror}).") from None
    if stat.S_ISDIR(mode):
        return _scan_below(root, matcher, most_bytes)
    if stat.S_ISREG(mode):
        # Whoever names a link means the file behind it.
        return iter((_scan_file(root, matcher, most_bytes, os.O_RDONLY),))
    raise ConfigurationError(f"{root} is neither a folder nor a file; for a pipe: scan stdin")


def scan_stream(stream: BinaryIO, matcher: Scans, most_bytes: int = MOST_BYTES) -> Inspection:
    """Match what `stream` holds, up to `most_bytes`; what lies beyond is named in `partial`."""
    data = stream.read(most_bytes + 1)
    partial = (f"-: only the first {most_bytes} bytes were read",) if data[most_bytes:] else ()
    return _inspect("-", data[:most_bytes], matcher, partial)


def _scan_below(root: Path, matcher: Scans, most_bytes: int) -> Iterator[Inspection]:
    # A list of folders, not recursion: a hostile tree is deeper than Python's stack.
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
            # Pipes, sockets and devices are not even opened: that alone can have effects.
            files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
            inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            yield Inspection(partial=(f"{folder}: {error.strerror}",))
            continue
        for name in files:
            yield _scan_file(folder / name, matcher, most_bytes, os.O_RDONLY | os.O_NOFOLLOW)
        folders += [folder / name for name in reversed(inner) if name != ".git"]


def _scan_file(path: Path, matcher: Scans, most_bytes: int, flags: int) -> Inspection:
    def opener(name: str, _flags: int) -> int:
        # Not blocking: a pipe may have taken the file's place since it was listed.
        return os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC)

    try:
        with open(path, "rb", opener=opener) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Inspection(partial=(f"{path}: is no regular file any more",))
            data = file.read(most_bytes + 1)
    except OSError as error:
        return Inspection(partial=(f"{path}: {error.strerror}",))
    if len(data) > most_bytes:
        return Inspection(partial=(f"{path}: larger than {most_bytes} bytes",))
    return _inspect(str(path), data, matcher)


def _inspect(path: str, data: bytes, matcher: Scans, partial: tuple[str, ...] = ()) -> Inspection:
    examined = examine(data, matcher, _MOST_FOUND)
    found = tuple(
        LocatedCandidate(
            spot.candidate,
            Place("", ObjectKind.BLOB, spot.path(path), line=spot.line, column=spot.column),
        )
        for spot in examined.spots
    )
    met = (f"{path}: {reason}" for reason in examined.partial)
    return Inspection(found, 1, 1, len(data), len(data), (*partial, *met))
