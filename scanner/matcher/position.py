"""From byte offsets to what people and editors count: lines and columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from scanner.matcher.allow import is_allowed
from scanner.model import Candidate


class Scans(Protocol):
    """What inspection needs of a matcher."""

    def scan(self, data: bytes) -> list[Candidate]:
        """Return the candidates in `data`, by start."""
        ...

    def examine(self, data: bytes | memoryview) -> tuple[list[Candidate], bool]:
        """Return the candidates, and whether nothing at all matched, before any filter."""
        ...


@dataclass(frozen=True, slots=True)
class Spot:
    """A candidate and its line and column, both from 1; columns count bytes.

    `member` is the path inside the archive it was found in, "!" between nested ones; offsets, line
    and column count in that member. Hostile, as paths are: any bytes (utf-8, surrogateescape).
    `allowed`: a comment in its line says that it may be there (allow.py says who heeds that).
    """

    candidate: Candidate
    line: int
    column: int
    member: str = ""
    allowed: bool = False

    def path(self, outer: str | None) -> str | None:
        """Return where it is, in an object at `outer`: "a.zip!inner/key.txt"."""
        return f"{outer or ''}!{self.member}" if self.member else outer


def spots(data: bytes, candidates: Sequence[Candidate]) -> tuple[Spot, ...]:
    """Find the lines of candidates that come in order of their start, in one pass over `data`."""
    found: list[Spot] = []
    line, line_start, position = 1, 0, 0
    for candidate in candidates:
        breaks = data.count(b"\n", position, candidate.start)
        if breaks:
            line += breaks
            line_start = data.rfind(b"\n", position, candidate.start) + 1
        position = candidate.start
        allowed = is_allowed(data, candidate.start, candidate.end)
        found.append(Spot(candidate, line, candidate.start - line_start + 1, allowed=allowed))
    return tuple(found)
