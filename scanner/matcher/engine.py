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

# Raise it with every change that may find more in the same bytes under the same patterns: what was
# scanned before (heads, remembered blobs) is scanned again then.
_EDITION = "1"

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
        parts = (_EDITION, ruleset.digest, *unfiltered)
        self.digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        self._overlap = max((pattern.max_width for pattern in ruleset.patterns), default=0)
        self._slice = max(slice_bytes, 1)
        # Hyperscan has no database of nothing.
        self._database: Any = load_or_compile(ruleset, cache_dir) if ruleset.patterns else None
        self._local = threading.local()

    def scan(self, data: Buffer) -> list[Candidate]:
        """Return every candidate, by start then pattern; spans are byte offsets in `data`."""
        return self.examine(data)[0]

    def examine(self, data: Buffer) -> tuple[list[Candidate], bool]:
        """Return what `scan` does, and whether `data` is bare: no pattern matched anywhere in it,
        not even what a checksum or a placeholder then ruled out."""
        if self._database is None:
            return [], True
        with memoryview(data) as base, base.cast("B") as view:
            windows = self._windows(view)
            if not windows:  # most of what there is holds nothing
                return [], True
            matches = [
                match
                for rule, joined in windows.items()
                for match in self._confirm(rule, view, joined)
            ]
        found = [candidate for candidate in matches if candidate is not None]
        found.sort(key=lambda candidate: (candidate.start, candidate.pattern))
        return found, not matches

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

    def _windows(self, view: memoryview) -> dict[int, list[tuple[int, int]]]:
        """For each rule that may match, the joined stretches of `view` that hold its matches."""
        windows: dict[int, list[tuple[int, int]]] = {}
        reported: list[tuple[int, int]] = []

        def report(rule: int, _start: int, end: int, _flags: int, _context: Any) -> None:
            reported.append((rule, end))

        scan, scratch = self._database.scan, self._scratch()
        if len(view) <= self._slice:
            scan(view, match_event_handler=report, scratch=scratch)
            if reported:
                self._note(windows, 0, reported)
            return windows
        for begin in range(0, len(view), self._slice):
            low = max(0, begin - self._overlap)  # a match across the seam lies whole in here
            with view[low : begin + self._slice] as piece:
                scan(piece, match_event_handler=report, scratch=scratch)
            self._note(windows, low, reported)
            reported.clear()
        return windows

    def _note(
        self,
        windows: dict[int, list[tuple[int, int]]],
        offset: int,
        reported: Iterable[tuple[int, int]],
    ) -> None:
        """Add the windows of what Hyperscan reported of the piece that begins at `offset`."""
        ends: dict[int, list[int]] = {}
        for rule, end in reported:
            ends.setdefault(rule, []).append(end)
        for rule, rule_ends in ends.items():
            width = self._rules[rule][0].max_width
            _join(windows.setdefault(rule, []), offset, rule_ends, width)

    def _scratch(self) -> Any:
        """This thread's own working memory: Hyperscan refuses one that is in use."""
        scratch = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = self._database.scratch.clone()
        return scratch

    def _confirm(
        self, rule: int, data: memoryview, windows: Iterable[tuple[int, int]]
    ) -> Iterator[Candidate | None]:
        """Yield every match of the rule in the windows: a candidate, or None where it is none."""
        pattern, compiled = self._rules[rule]
        for low, high in windows:
            # One byte more on each side, so that the bounds see their neighbours.
            first, last = max(0, low - 1), min(len(data), high + 1)
            window = bytes(data[first:last])
            for match in compiled.finditer(window, low - first):
                yield self._candidate(rule, pattern, match, first)

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
