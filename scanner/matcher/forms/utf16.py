"""Text of two bytes a character."""

from __future__ import annotations

from collections.abc import Iterator

from scanner.matcher.forms.text import Text
from scanner.matcher.windows import Windows

_FOREIGN = 0x00  # stands for a character outside Latin-1: no token holds it, and it touches nothing


def texts(data: memoryview, windows: Windows, parity: int) -> Iterator[Text]:
    """Yield the text of each window, the low bytes of which are at odd (1) or even (0) offsets.

    Files begin with whole characters, so at even offsets it is little-endian; as nothing else tells
    the two apart where only ASCII stands, the other reading follows when it differs.
    """
    for low, high in windows:
        first = low + ((low ^ parity) & 1)
        orders = (1, -1) if not parity else (-1, 1)  # where the high byte is, seen from the low one
        readings = [(order, _read(data, first, high, order)) for order in orders]
        for index, (order, text) in enumerate(readings):
            if index and text == readings[0][1]:
                break
            yield _text(text, first + min(order, 0), low > 0, high < len(data))


def _read(data: memoryview, first: int, end: int, order: int) -> bytes:
    lows = bytes(data[first:end:2])
    if first + order < 0:
        highs = b"\xff" + bytes(data[first + order + 2 : end + order : 2])
    else:
        highs = bytes(data[first + order : end + order : 2])
    highs = highs.ljust(len(lows), b"\xff")  # half a character is none
    if highs.count(0) == len(highs):
        return lows
    return bytes(_FOREIGN if high else low for low, high in zip(lows, highs, strict=False))


def _text(text: bytes, begin: int, is_cut_before: bool, is_cut_after: bool) -> Text:
    def source(start: int, end: int) -> tuple[int, int]:
        return begin + 2 * start, begin + 2 * end

    return Text(text, source, lambda _start, _end: "utf-16", is_cut_before, is_cut_after)
