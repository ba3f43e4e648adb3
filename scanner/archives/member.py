"""What comes out of an archive."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from scanner.archives.bounds import MEMBER_TOO_LARGE, Budget

_MOST_NAME = 1_024  # characters


class Reads(Protocol):
    """Bytes that come piece by piece."""

    def read(self, most: int) -> bytes:
        """Return at most `most` bytes, b"" at the end and at no other time."""
        ...


class Slices:
    """A stretch of bytes in memory as a stream, accounted for as if it came out of one."""

    def __init__(self, data: bytes, budget: Budget, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._budget = budget
        self._at = start
        self._end = len(data) if end is None else end

    def read(self, most: int) -> bytes:
        """Return at most `most` bytes, b"" at the end and at no other time."""
        most = min(most, self._end - self._at)
        if most > 0 >= self._budget.left:
            self._budget.exhaust()
            self._at = self._end
            return b""
        piece = self._data[self._at : self._at + min(most, self._budget.left)]
        self._at += len(piece)
        self._budget.spend(len(piece))
        return piece


@dataclass(frozen=True, slots=True)
class Member:
    """One member: a hostile name (utf-8, surrogateescape), and what could be read of it.

    `at` is where the same bytes stand in the archive itself, if it holds them as they are.
    """

    name: str
    data: bytes = b""
    at: int | None = None


def show(name: bytes) -> str:
    """Return a member's name as it is reported: bounded, and without NUL."""
    return bounded(
        name.replace(b"\0", b"\xef\xbf\xbd").decode("utf-8", "surrogateescape"), _MOST_NAME
    )


def bounded(path: str, most: int) -> str:
    """Return `path`, or a digest of it where it is longer than `most` characters.

    Never a part: what masks a token in a path would not know half of one.
    """
    if len(path) <= most:
        return path
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()
    return f"(a path of {len(path)} characters, {digest[:16]})"


def read_member(stream: Reads, budget: Budget) -> bytes:
    """Return what `stream` holds, cut at the bound of one member."""
    pieces: list[bytes] = []
    left = budget.member_bytes
    while left > 0 and (piece := stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0 and stream.read(1):
        budget.note(MEMBER_TOO_LARGE)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
