"""Text of two bytes a character."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from scanner.matcher.forms.text import Text
from scanner.matcher.windows import Windows

_FOREIGN = 0x00  # stands for a character outside Latin-1: no token holds it, and it touches nothing


def texts(data: memoryview, windows: Windows, parity: int) -> Iterator[Text]:
    """Yield the text of each window, the low bytes of which are at odd (1) or even (0) offsets.

    Files begin with whole characters, so at even offsets it is little-endian; as nothing else tells
    the two apart where only ASCII stands, the other reading follows when it differs (text in the
    midst of other bytes may begin anywhere; the price is that a character such as U+0141 may then
    be taken for the "A" in it).
    """
    for low, high in windows:
        first = low + ((low ^ parity) & 1)
        orders = (1, -1) if not parity else (-1, 1)  # where the high byte is, seen from the low one
        readings = [(order, _read(data, first, high, order)) for order in orders]
        for is_second, (order, text) in enumerate(readings):
            if is_second and text == readings[0][1]:
                break
            yield Text(
                text,
                partial(_source, first + min(order, 0)),
                _encoding,
                low > 0,
                high < len(data),
                bool(is_second),
            )


def _source(begin: int, start: int, end: int) -> tuple[int, int]:
    return begin + 2 * start, begin + 2 * end


def _encoding(_start: int, _end: int) -> str:
    return "utf-16"


def _read(data: memoryview, first: int, end: int, order: int) -> bytes:
    lows = bytes(data[first:end:2])
    if first + order < 0:
        highs = b"\0" + bytes(data[first + order + 2 : end + order : 2])
    else:
        highs = bytes(data[first + order : end + order : 2])
    highs = highs.ljust(len(lows), b"\0")  # the data may end in the middle of a character
    if highs.count(0) == len(highs):
        return lows
    return bytes(_FOREIGN if high else low for low, high in zip(lows, highs, strict=False))
