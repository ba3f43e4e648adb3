"""The matcher: Hyperscan tells where tokens may be, `re` says which bytes they are.

Hyperscan runs without start-of-match tracking and looks for probes (probes.py): a beginning of each
pattern, and its anchors in each encoding. Every report opens a window as wide as the pattern can
reach; windows that overlap are joined, and the reference expression runs over each once. A probe is
met wherever the reference matches, so every match lies whole in one window, and the spans are
exactly the reference's, in time linear in the data. Where an encoding's anchor was met, the window
is decoded first.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner.matcher import placeholders
from scanner.matcher.checksums import CHECKSUMS
from scanner.matcher.database import open_database
from scanner.matcher.entropy import entropy
from scanner.matcher.forms.decode import decode
from scanner.matcher.mask import mask
from scanner.matcher.pattern import ChecksumMode, Ruleset
from scanner.matcher.probes import Form, Probe
from scanner.matcher.reference import expression
from scanner.matcher.windows import around
from scanner.model import Candidate, Checksum, Secret

Buffer = bytes | bytearray | memoryview | mmap.mmap

# A slice bounds what the callback can gather before it is joined: a run of one pattern's alphabet
# reports once a byte. (Hyperscan itself would silently truncate lengths over 4 GiB.)
_SLICE = 1 << 20

# Raise it with every change that may find more in the same bytes under the same patterns: what was
# scanned before (heads, remembered blobs) is scanned again then.
_EDITION = "4"

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
        # Compiled when first needed: most processes meet few kinds of token.
        self._expressions: dict[int, re.Pattern[bytes]] = {}
        self._filtered = frozenset(
            rule
            for rule, pattern in enumerate(ruleset.patterns)
            if not pattern.own and pattern.id not in bound
        )
        self._words: dict[int, tuple[re.Pattern[bytes], ...]] = {}
        # What a store answers for decides what is filtered, so it is part of what was looked for.
        unfiltered = sorted(bound & {pattern.id for pattern in ruleset.patterns})
        parts = (_EDITION, ruleset.digest, *unfiltered)
        self.digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        # Hyperscan has no database of nothing.
        database = open_database(ruleset, cache_dir) if ruleset.patterns else None
        self._probes = database.probes if database else ()
        self._database: Any = database.scanner if database else None
        self._overlap = max((probe.reach for probe in self._probes), default=0)
        self._slice = max(slice_bytes, 1)
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
            ends = self._reports(view)
            if not ends:  # most of what there is holds nothing
                return [], True
            matches = list(self._matches(view, ends))
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

    def _reports(self, view: memoryview) -> dict[int, list[int]]:
        """For each probe that was met, where in `view` it ended, in order."""
        reported: list[tuple[int, int]] = []

        def report(probe: int, _start: int, end: int, _flags: int, _context: Any) -> None:
            reported.append((probe, end))

        scan, scratch = self._database.scan, self._scratch()
        ends: dict[int, list[int]] = {}
        if len(view) <= self._slice:
            scan(view, match_event_handler=report, scratch=scratch)
            _sort(reported, ends, 0, -1)
            return ends
        for begin in range(0, len(view), self._slice):
            low = max(0, begin - self._overlap)  # a match across the seam lies whole in here
            with view[low : begin + self._slice] as piece:
                scan(piece, match_event_handler=report, scratch=scratch)
            _sort(reported, ends, low, begin)
            reported.clear()
        return ends

    def _scratch(self) -> Any:
        """This thread's own working memory: Hyperscan refuses one that is in use."""
        scratch = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = self._database.scratch.clone()
        return scratch

    def _matches(
        self, view: memoryview, ends: Mapping[int, Sequence[int]]
    ) -> Iterator[Candidate | None]:
        """Yield every match around the ends: a candidate, or None where it is none."""
        plain: dict[int, set[tuple[int, int]]] = {}
        others: list[tuple[Probe, Sequence[int]]] = []
        for index, its_ends in ends.items():
            probe = self._probes[index]
            if probe.form is not Form.PLAIN:
                others.append((probe, its_ends))
                continue
            windows = around(its_ends, probe.back, probe.forward, len(view))
            spans = plain[probe.rule] = set()
            for match, start in self._confirm(probe.rule, view, windows):
                spans.add((start, start + len(match)))
                yield self._candidate(probe.rule, match, start, start + len(match), "plain")
        if others:
            yield from self._decoded(view, others, plain)

    def _expression(self, rule: int) -> re.Pattern[bytes]:
        compiled = self._expressions.get(rule)
        if compiled is None:
            compiled = self._expressions[rule] = expression(self.ruleset.patterns[rule])
        return compiled

    def _confirm(
        self, rule: int, data: memoryview, windows: Iterable[tuple[int, int]]
    ) -> Iterator[tuple[bytes, int]]:
        """Yield the reference's matches in the windows, and where they start."""
        find = self._expression(rule).finditer
        for low, high in windows:
            # One byte more on each side, so that the bounds see their neighbours.
            first, last = max(0, low - 1), min(len(data), high + 1)
            for match in find(bytes(data[first:last]), low - first):
                yield match.group(), first + match.start()

    def _decoded(
        self,
        view: memoryview,
        met: Sequence[tuple[Probe, Sequence[int]]],
        plain: Mapping[int, set[tuple[int, int]]],
    ) -> Iterator[Candidate | None]:
        """Yield the matches in what was decoded; those that stand there plainly are known."""
        spans: dict[int, set[tuple[int, int]]] = {}
        for rule, texts in decode(view, met):
            known = spans.setdefault(rule, set(plain.get(rule, ())))
            find = self._expression(rule).finditer
            first: list[int] = []  # starts and ends of what a text held, in order
            for text in texts:
                if not text.is_second:
                    first = []
                for match in find(text.data):
                    start, end = match.span()
                    if (text.is_cut_before and start == 0) or (
                        text.is_cut_after and end == len(text.data)
                    ):
                        continue  # whether it is one shows in a window of its own
                    span = text.source(start, end)
                    if text.is_second:
                        if _meets(first, *span):
                            continue
                    else:
                        first += span
                    if span not in known:
                        known.add(span)
                        encoding = text.encoding(start, end)
                        yield self._candidate(rule, match.group(), *span, encoding)

    def _candidate(
        self, rule: int, value: bytes, start: int, end: int, encoding: str
    ) -> Candidate | None:
        pattern = self.ruleset.patterns[rule]
        checksum = Checksum.ABSENT
        if pattern.checksum is not None:
            right = CHECKSUMS[pattern.checksum].verify(value)
            checksum = Checksum.VALID if right else Checksum.INVALID
            if not right and pattern.checksum_mode is ChecksumMode.REQUIRED:
                return None
        is_plain = pattern.entropy and entropy(value) <= pattern.entropy
        if is_plain and checksum is not Checksum.VALID:
            return None
        if checksum is not Checksum.VALID and rule in self._filtered:
            words = self._words.get(rule)
            if words is None:
                words = self._words[rule] = placeholders.compiled(pattern)
            if placeholders.filtered(pattern, value, words):
                return None
        return Candidate(
            pattern=pattern.id,
            issuer=pattern.issuer,
            start=start,
            end=end,
            secret=Secret(value),
            checksum=checksum,
            mask=mask(pattern, value),
            encoding=encoding,
        )


def _meets(edges: Sequence[int], start: int, end: int) -> bool:
    """Whether a span meets one of those whose starts and ends are the `edges`, in order."""
    index = bisect_right(edges, start)
    return index % 2 == 1 or (index < len(edges) and edges[index] < end)


def _sort(
    reported: Iterable[tuple[int, int]], ends: dict[int, list[int]], low: int, begin: int
) -> None:
    """Add what was reported of the piece at `low`: for each probe, in order, each end once.

    What ends at or before `begin` was reported already, by the piece before this one.
    """
    fresh: dict[int, list[int]] = {}
    for probe, end in reported:
        if low + end > begin:
            fresh.setdefault(probe, []).append(low + end)
    for probe, its_ends in fresh.items():
        its_ends.sort()
        ends.setdefault(probe, []).extend(its_ends)
