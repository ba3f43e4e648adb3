"""The matcher: Hyperscan tells where tokens may end, `re` says which bytes they are.

Hyperscan runs without start-of-match tracking. Each reported end opens a window that reaches back
by the pattern's own greatest width; overlapping windows are joined, and the reference expression
runs over each joined window once. Every reference match ends where Hyperscan reports an end, so it
lies whole in one window, and the spans are exactly the reference's, in time linear in the data.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from scanner.matcher.cache import load_or_compile
from scanner.matcher.checksums import CHECKSUMS
from scanner.matcher.mask import mask
from scanner.matcher.pattern import ChecksumMode, Pattern, Ruleset
from scanner.matcher.reference import expression
from scanner.model import Candidate, Checksum, Secret

Buffer = bytes | bytearray | memoryview | mmap.mmap

# A slice bounds what the callback can gather before it is joined: a run of one pattern's alphabet
# reports once a byte. (Hyperscan itself would silently truncate lengths over 4 GiB.)
_SLICE = 1 << 20

# Half a character that `surrogateescape` did not make: no encoding holds it.
_LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class Matcher:
    """Finds candidates of a ruleset in bytes. Safe to share between threads.

    `bound` names the patterns a store answers for: placeholder filters never apply to these, nor to
    the issuer's own. `slice_bytes` is how much Hyperscan gets in one call.
    """

    def __init__(
        self,
        ruleset: Ruleset,
        cache_dir: Path | None = None,
        bound: frozenset[str] = frozenset(),
        *,
        slice_bytes: int = _SLICE,
    ) -> None:
        self.ruleset = ruleset
        self._rules = [(pattern, expression(pattern)) for pattern in ruleset.patterns]
        self._placeholders = [
            []
            if pattern.own or pattern.id in bound
            else [re.compile(p.encode(), re.IGNORECASE) for p in pattern.placeholders]
            for pattern in ruleset.patterns
        ]
        # What a store answers for decides what is filtered, so it is part of what was looked for.
        unfiltered = sorted(bound & {pattern.id for pattern in ruleset.patterns})
        self.digest = hashlib.sha256("\0".join((ruleset.digest, *unfiltered)).encode()).hexdigest()
        self._overlap = max((pattern.max_width for pattern in ruleset.patterns), default=0)
        self._slice = max(slice_bytes, 1)
        # Hyperscan has no database of nothing.
        self._database: Any = load_or_compile(ruleset, cache_dir) if ruleset.patterns else None
        self._local = threading.local()

    def scan(self, data: Buffer) -> list[Candidate]:
        """Return every candidate, by start then pattern; spans are byte offsets in `data`."""
        if self._database is None:
            return []
        with memoryview(data) as base, base.cast("B") as view:
            found = [
                candidate
                for rule, windows in enumerate(self._windows(view))
                for candidate in self._confirm(rule, view, windows)
            ]
        return sorted(found, key=lambda candidate: (candidate.start, candidate.pattern))

    def redact(self, text: str) -> str:
        """Return `text` with every candidate replaced by its mask; half characters become U+FFFD.

        Where candidates overlap, the bytes of all of them are gone and the first one's mask stands.
        """
        data = _LONE.sub("\ufffd", text).encode("utf-8", "surrogateescape")
        pieces, position = [], 0
        for candidate in self.scan(data):
            if candidate.start >= position:
                pieces += [data[position : candidate.start], candidate.mask.encode()]
            position = max(position, candidate.end)
        pieces.append(data[position:])
        return b"".join(pieces).decode("utf-8", "surrogateescape")

    def _windows(self, view: memoryview) -> list[list[tuple[int, int]]]:
        """For each rule, the joined stretches of `view` that hold every match of it."""
        windows: list[list[tuple[int, int]]] = [[] for _ in self._rules]
        ends: list[list[int]] = [[] for _ in self._rules]

        def report(rule: int, _start: int, end: int, _flags: int, _context: Any) -> None:
            ends[rule].append(end)

        scratch = self._scratch()
        for begin in range(0, len(view), self._slice):
            low = max(0, begin - self._overlap)  # a match across the seam lies whole in here
            with view[low : begin + self._slice] as piece:
                self._database.scan(piece, match_event_handler=report, scratch=scratch)
            for rule, rule_ends in enumerate(ends):
                if rule_ends:
                    _join(windows[rule], low, rule_ends, self._rules[rule][0].max_width)
                    rule_ends.clear()
        return windows

    def _scratch(self) -> Any:
        """This thread's own working memory: Hyperscan refuses one that is in use."""
        scratch = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = self._database.scratch.clone()
        return scratch

    def _confirm(
        self, rule: int, data: memoryview, windows: Iterable[tuple[int, int]]
    ) -> Iterator[Candidate]:
        pattern, compiled = self._rules[rule]
        for low, high in windows:
            # One byte more on each side, so that the bounds see their neighbours.
            first, last = max(0, low - 1), min(len(data), high + 1)
            window = bytes(data[first:last])
            for match in compiled.finditer(window, low - first):
                candidate = self._candidate(rule, pattern, match, first)
                if candidate is not None:
                    yield candidate

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
        if checksum is not Checksum.VALID and any(
            placeholder.search(value) for placeholder in self._placeholders[rule]
        ):
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


def _join(windows: list[tuple[int, int]], offset: int, ends: list[int], width: int) -> None:
    """Extend `windows` by [end - width, end] for each of `ends` (from `offset`); join what touches.

    An end inside the last window was reported before, by the slice on the other side of a seam.
    """
    ends.sort()
    # A long run of one pattern's alphabet ends everywhere: every width-th end covers the same.
    run = ends[-1] - ends[0] == len(ends) - 1
    for relative in (*ends[:: max(1, width)], ends[-1]) if run else ends:
        end = offset + relative
        low = max(0, end - width)
        if windows and low <= windows[-1][1]:
            windows[-1] = (windows[-1][0], max(windows[-1][1], end))
        else:
            windows.append((low, end))
