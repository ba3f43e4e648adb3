"""Base64, of either alphabet, in one run or broken into lines.

A run is decoded around each hit, to either side as far as a token can reach. Which of the four ways
to cut a run into groups is the right one, the hit itself tells.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator

from scanner.matcher.forms.text import Pieces, Text

# What follows an escape's sign belongs to the escape: %3D is "=", not "3D".
_PARTS = re.compile(
    rb"%[0-9A-Fa-f]{2}|(?:\\r)?\\n|\\[rt]|\\[ux](?:00)?[0-9A-Fa-f]{2}|(?P<run>[0-9A-Za-z+/_-]+)"
)
_JOIN = re.compile(
    rb"(?:\\r)?\\n|\\|\\?\r?\n[ \t]{0,64}"
    rb"|[\"'`][ \t]{0,64}[+.&\\]?[ \t]{0,64}\r?\n[ \t]{0,64}[+.&]?[ \t]{0,64}[bBfFrRuU]{0,2}[\"'`]"
)
_LEAST_LINE = 16  # characters of a line that goes on in the next
_AHEAD = 1_024  # bytes decoded beyond what a hit needs: later hits of the same run may lie there
_BEHIND = 256  # bytes beyond what a hit needs, for the breaks of lines
_KEPT = 4  # decoded stretches that later hits may lie in
_NEAR = 96  # bytes before a hit in which its line, or the end of the line before, begins
_RUN = re.compile(rb"[0-9A-Za-z+/_-]+")
_BEFORE = re.compile(rb"[0-9A-Za-z+/_-]+\Z")
_NEW_LINE = re.compile(rb"(?:[\n\"'`]|\\)[ \t]{0,64}[bBfFrRuU]{0,2}\Z")
_ALL = frozenset(range(4))
_CLASSES = bytes(
    ord("A" if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "+/-_") else " ")
    for byte in range(256)
)
_WIDEST_JOIN = 270
_STANDARD = bytes.maketrans(b"-_", b"+/")

# The offset just past it, its phase, and the characters needed before and after: see `Probe`.
Hit = tuple[int, int | None, int, int]


class _Stretch:
    """Characters of one run, its lines joined; so many as `cuts` say may stand before a group."""

    __slots__ = ("characters", "cuts", "is_broken", "is_open", "pieces")

    def __init__(self, data: memoryview, least: int, most: int, hit: int, *, joined: bool) -> None:
        low = _first(data, least, hit)
        high = _last(data, hit, most) if joined else _run_end(data, hit, most)
        raw = bytes(data[low:high])
        self.pieces = Pieces()
        parts: list[bytes] = []
        size = end = 0
        for part in _PARTS.finditer(raw):
            run = part["run"]
            if run is None:
                continue
            goes_on = (
                joined
                and parts
                and len(parts[-1]) >= _LEAST_LINE
                and _JOIN.fullmatch(raw, end, part.start())
            )
            if not goes_on:
                if low + end > hit:
                    break
                self.pieces, parts, size = Pieces(), [], 0
            self.pieces.add(size, low + part.start())
            parts.append(run)
            size += len(run)
            end = part.end()
        if not parts:
            self.pieces.add(0, low)
        self.characters = b"".join(parts).translate(_STANDARD)
        self.is_broken = len(parts) > 1
        # Whether the run may begin earlier, or end later, than was looked at.
        self.is_open = (self.pieces.origin(0) == least > 0, low + end == most < len(data))
        self.cuts: frozenset[int] = frozenset()

    def place(self, hit: int) -> int | None:
        """Which of the characters stands at the byte `hit` of the data, or just before it."""
        for origin in (hit, hit - 1):
            at = self.pieces.text(origin)
            if at is not None and at < len(self.characters):
                return at
        return None

    def covers(self, hit: int, phase: int | None, back: int, forward: int) -> bool:
        """Whether all that a hit needs is decoded here, cut into the same groups."""
        at = self.place(hit)
        return (
            at is not None
            and self.cuts >= _cuts(at, phase)
            and (at >= back or not self.is_open[0])
            and (at + forward < len(self.characters) or not self.is_open[1])
        )

    def text(self, cut: int) -> Text:
        """Decode it. A group that is not whole at the end gives what it holds."""
        pieces = self.pieces
        characters = self.characters[cut:]
        if len(characters) % 4 == 1:
            characters = characters[:-1]
        decoded = binascii.a2b_base64(characters + b"=" * (-len(characters) % 4))

        def source(start: int, end: int) -> tuple[int, int]:
            last = cut + (4 * end - 1) // 3
            return pieces.origin(cut + 4 * start // 3), pieces.origin(last) + 1

        return Text(decoded, source, lambda _start, _end: "base64", *self.is_open)


def _first(data: memoryview, least: int, hit: int) -> int:
    """Where the first of the runs begins that go on in the one at `hit`; not before `least`.

    Runs that are cut by an escape are taken for ones that go on: it is for the reader to tell.
    """
    written = bytes(data[least:hit])
    classes = written.translate(_CLASSES)
    begin = classes.rfind(b" ") + 1
    while begin:
        end = classes.rfind(b"A", 0, begin) + 1
        if not end or begin - end > _WIDEST_JOIN or not _JOIN.fullmatch(written, end, begin):
            break
        begin = classes.rfind(b" ", 0, end) + 1
    # An escape's sign tells that the run begins later than it seems.
    return least + max(0, begin - 1)


def _run_end(data: memoryview, hit: int, most: int) -> int:
    """Where the run at `hit`, or right after it, ends; at `most` at the latest."""
    run = _RUN.search(data, max(0, hit - 1), most)
    return run.end() if run else min(most, hit + 1)


def _last(data: memoryview, hit: int, most: int) -> int:
    """Where the last of the runs ends that go on from the one at `hit`; at `most` at the latest."""
    end = _run_end(data, hit, most)
    while (join := _JOIN.match(data, end, most)) and (run := _RUN.match(data, join.end(), most)):
        end = run.end()
    return end


def _cuts(at: int, phase: int | None) -> frozenset[int]:
    """The cuts in which a group begins `phase` characters before the one at `at`."""
    return _ALL if phase is None else frozenset(((at - phase) % 4,))


def _may_hold(data: memoryview, hit: int) -> bool:
    """Whether the run at `hit` is long enough, or may go on a line before: most are neither."""
    low = max(0, hit - _NEAR)
    around = bytes(data[low : hit + _LEAST_LINE])
    before = _BEFORE.search(around, 0, hit - low)
    behind = _RUN.match(around, hit - low)
    begin = before.start() if before else hit - low
    if (behind.end() if behind else hit - low) - begin >= _LEAST_LINE:
        return True
    return begin == 0 or _NEW_LINE.search(around, 0, begin) is not None


def texts(data: memoryview, hits: Iterable[Hit]) -> Iterator[Text]:
    """Yield what the runs around the hits hold.

    They come in order. Where lines are joined, the hit's line by itself is read as well: the lines
    around it may be something else.
    """
    kept: list[_Stretch] = []
    for end, phase, back, forward in hits:
        hit = end - 1
        if not _may_hold(data, hit):
            continue
        if any(stretch.covers(hit, phase, back, forward) for stretch in kept):
            continue
        low = max(0, hit - 2 * back - _BEHIND)
        most = min(len(data), hit + 2 * forward + _BEHIND + _AHEAD)
        for joined in (True, False):
            stretch = _Stretch(data, low, most, hit, joined=joined)
            at = stretch.place(hit)
            if at is None:
                continue
            stretch.cuts = _cuts(at, phase)
            yield from map(stretch.text, stretch.cuts)
            if joined:
                kept = [stretch, *kept[: _KEPT - 1]]
                if not stretch.is_broken:
                    break


def runs(data: bytes) -> Iterator[Text]:
    """Yield what each run of base64 in `data` holds, in each of the four cuts, line by line."""
    view = memoryview(data)
    for part in _PARTS.finditer(data):
        if part["run"] is None or part.end() - part.start() < _LEAST_LINE:
            continue
        stretch = _Stretch(view, *part.span(), part.start(), joined=False)
        stretch.is_open = (False, False)  # it is the whole run
        yield from map(stretch.text, range(4))
