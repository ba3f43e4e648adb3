"""Text with escapes of URLs and of JSON, and strings that are put together over a line break."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from scanner.matcher.forms.text import Pieces, Text
from scanner.matcher.windows import Windows

# It begins with one class, so that `re` skips quickly to what may be an escape.
_ESCAPES = re.compile(
    rb"(?P<sign>[%\\\"'`])(?:"
    rb"(?<=%)(?:25){0,2}(?P<url>[0-9A-Fa-f]{2})"
    # Twice, for JSON in JSON: a log's line in a container's log.
    rb"|(?<=\\)\\{0,3}(?:u(?P<four>00[0-9A-Fa-f]{2})|x(?P<two>[0-9A-Fa-f]{2})"
    rb"|(?P<one>[abfnrtv0/\"']))|(?<=\\)(?P<back>\\)"
    # "abc" + \n "def", in the ways of common languages
    rb"|(?<=[\"'`])(?P<seam>[ \t]{0,64}(?:[+.&\\]|\.\.|<>)?[ \t]{0,64}\r?\n"
    rb"[ \t]{0,64}(?:[+.&]|\.\.|<>)?[ \t]{0,64}[bBfFrRuU]{0,2}(?P=sign)))"
)
_ONE = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
    b"0": b"\0", b"/": b"/", b'"': b'"', b"'": b"'",
}  # fmt: skip
_NAMES = {
    "url": "url", "four": "json", "two": "json", "one": "json", "back": "json", "seam": "joined",
}  # fmt: skip

_ORDER = ("joined", "json", "url")  # which one is told of several


def texts(data: memoryview, windows: Windows) -> Iterator[Text]:
    """Yield the text of each window that holds anything to undo."""
    for low, high in windows:
        raw = bytes(data[low:high])
        text = _undo(raw, low, high < len(data))
        if text is not None:
            yield text


def _undo(raw: bytes, low: int, is_cut_after: bool) -> Text | None:
    written: list[bytes] = []
    pieces = Pieces()
    ends: dict[int, int] = {}  # of a byte that was undone: where its escape ends
    marks: list[int] = []  # where in the text something was undone
    names: list[str] = []
    size = position = 0
    for escape in _ESCAPES.finditer(raw):
        kind = escape.lastgroup or ""
        plain, undone = raw[position : escape.start()], _undone(escape, kind)
        position = escape.end()
        pieces.add(size, low + escape.start() - len(plain))
        size += len(plain)
        pieces.add(size, low + escape.start())
        marks.append(size)
        names.append(_NAMES[kind])
        if undone:
            ends[size] = low + position
        size += len(undone)
        written += [plain, undone]
    if not marks:
        return None
    pieces.add(size, low + position)
    written.append(raw[position:])

    def source(start: int, end: int) -> tuple[int, int]:
        last = end - 1
        return pieces.origin(start), ends.get(last) or pieces.origin(last) + 1

    def encoding(start: int, end: int) -> str:
        first, last = bisect_left(marks, start - 1), bisect_left(marks, end + 1)
        # With nothing undone in it: what was undone before it made the token before it another one.
        met = names[first:last] or names[max(0, first - 1) :][:1]
        return min(met, key=_ORDER.index)

    return Text(b"".join(written), source, encoding, low > 0, is_cut_after)


def _undone(escape: re.Match[bytes], kind: str) -> bytes:
    if kind == "one":
        return _ONE[escape["one"]]
    if kind in ("url", "two", "four"):
        return bytes((int(escape[kind], 16),))
    return b"\\" if kind == "back" else b""
