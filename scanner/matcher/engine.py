"""The matcher: Hyperscan tells where tokens may end, `re` says which bytes they are.

Hyperscan runs without start-of-match tracking. Each reported end opens a window that reaches back
by the pattern's own greatest width; overlapping windows are joined, and the reference expression
runs over each joined window once. Every reference match ends where Hyperscan reports an end, so it
lies whole in one window, and the spans are exactly the reference's, in time linear in the data.
"""

from __future__ import annotations

import mmap
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scanner.matcher.cache import load_or_compile
from scanner.matcher.checksums import CHECKSUMS
from scanner.matcher.mask import mask
from scanner.matcher.pattern import ChecksumMode, Pattern, Ruleset
from scanner.matcher.reference import expression
from scanner.model import Candidate, Checksum, Secret

Buffer = bytes | bytearray | memoryview | mmap.mmap

_SLICE = 1 << 30  # bytes a Hyperscan call; lengths over 4 GiB would be silently truncated


class Matcher:
    """Finds candidates of a ruleset in bytes. Safe to share between threads.

    `bound` names the patterns a store answers for: placeholder filters never apply to these, nor to
    the issuer's own.
    """

    def __init__(
        self,
        ruleset: Ruleset,
        cache_dir: Path | None = None,
        bound: frozenset[str] = frozenset(),
    ) -> None:
        self.ruleset = ruleset
        self.digest = ruleset.digest
        self._rules = [(pattern, expression(pattern)) for pattern in ruleset.patterns]
        self._placeholders = [
            None
            if pattern.own or pattern.id in bound or not pattern.placeholders
            else re.compile("|".join(pattern.placeholders).encode(), re.IGNORECASE)
            for pattern in ruleset.patterns
        ]
        self._overlap = max((pattern.max_width for pattern in ruleset.patterns), default=0) + 1
        self._database = load_or_compile(ruleset, cache_dir)
        self._local = threading.local()

    def scan(self, data: Buffer) -> list[Candidate]:
        """Return every candidate, by start then pattern; spans are byte offsets in `data`."""
        ends: list[list[int]] = [[] for _ in self._rules]

        def report(rule: int, _start: int, end: int, _flags: int, _context: Any) -> None:
            ends[rule].append(end)

        view = memoryview(data)
        found: list[Candidate] = []
        try:
            for begin in range(0, max(len(view), 1), _SLICE):
                low = max(0, begin - self._overlap)
                piece = view[low : begin + _SLICE]
                if not len(piece):
                    continue
                for rule_ends in ends:
                    rule_ends.clear()
                self._database.scan(piece, match_event_handler=report, scratch=self._scratch())
                for rule, rule_ends in enumerate(ends):
                    if rule_ends:
                        found += self._confirm(rule, view, [low + end for end in rule_ends])
                piece.release()
        finally:
            view.release()
        unique = {(c.start, c.pattern): c for c in found} if len(data) > _SLICE else None
        return sorted(unique.values() if unique else found, key=lambda c: (c.start, c.pattern))

    def redact(self, text: str) -> str:
        """Return `text` with every candidate replaced by its mask."""
        data = text.encode("utf-8", "surrogateescape")
        pieces, position = [], 0
        for candidate in self.scan(data):
            if candidate.start < position:
                position = max(position, candidate.end)
                continue
            pieces += [data[position : candidate.start], candidate.mask.encode()]
            position = candidate.end
        pieces.append(data[position:])
        return b"".join(pieces).decode("utf-8", "surrogateescape")

    def _scratch(self) -> Any:
        scratch = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = self._database.scratch.clone()
        return scratch

    def _confirm(self, rule: int, data: memoryview, ends: list[int]) -> Iterable[Candidate]:
        pattern, compiled = self._rules[rule]
        found = []
        for low, high in _windows(sorted(ends), pattern.max_width):
            # One byte more on each side, so that the bounds see their neighbours.
            first, last = max(0, low - 1), min(len(data), high + 1)
            window = bytes(data[first:last])
            for match in compiled.finditer(window, low - first):
                candidate = self._candidate(rule, pattern, match, first)
                if candidate is not None:
                    found.append(candidate)
        return found

    def _candidate(
        self, rule: int, pattern: Pattern, match: re.Match[bytes], offset: int
    ) -> Candidate | None:
        value = match.group()
        checksum = Checksum.ABSENT
        if pattern.checksum is not None:
            right = CHECKSUMS[pattern.checksum].verify(value)
            checksum = Checksum.VALID if right else Checksum.INVALID
            if not right and pattern.checksum_mode is ChecksumMode.REQUIRED:
                return None
        placeholder = self._placeholders[rule]
        if checksum is not Checksum.VALID and placeholder is not None and placeholder.search(value):
            return None
        return Candidate(
            pattern=pattern.id,
            issuer=pattern.issuer,
            start=offset + match.start(),
            end=offset + match.end(),
            secret=Secret(value),
            checksum=checksum,
            mask=mask(pattern, value),
        )


def _windows(ends: Iterable[int], width: int) -> list[tuple[int, int]]:
    """Join the windows [end - width, end] that touch."""
    joined: list[tuple[int, int]] = []
    for end in ends:
        low = max(0, end - width)
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((low, end))
    return joined
