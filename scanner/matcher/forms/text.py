"""Decoded text that knows which bytes of the data it stands for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """A decoded stretch. `source` turns a span of `data` into one of what it was decoded from;
    `encoding` names how that span was written. Where the text was cut, what touches its edge may go
    on beyond it. `is_second`: another reading of the text before it, which counts where that one
    held nothing."""

    data: bytes
    source: Callable[[int, int], tuple[int, int]]
    encoding: Callable[[int, int], str]
    is_cut_before: bool = False
    is_cut_after: bool = False
    is_second: bool = False


def nested(outer: Text, inner: Text, name: str) -> Text:
    """Return `inner`, decoded from the data of `outer`, as a text of what that is from."""

    def source(start: int, end: int) -> tuple[int, int]:
        return outer.source(*inner.source(start, end))

    return Text(
        inner.data,
        source,
        lambda _start, _end: name,
        inner.is_cut_before or outer.is_cut_before,
        inner.is_cut_after or outer.is_cut_after,
        inner.is_second,
    )


class Pieces:
    """A text put together of pieces of the data, each byte for byte."""

    __slots__ = ("_at", "_from")

    def __init__(self) -> None:
        self._at: list[int] = []  # where each piece begins in the text
        self._from: list[int] = []  # and in the data

    def add(self, at: int, origin: int) -> None:
        """The text from `at` on, until the next piece, is the data from `origin` on."""
        self._at.append(at)
        self._from.append(origin)

    def origin(self, at: int) -> int:
        """Where in the data the byte `at` of the text comes from; there is a piece at 0."""
        piece = bisect_right(self._at, at) - 1
        return self._from[piece] + at - self._at[piece]

    def text(self, origin: int) -> int | None:
        """Which byte of the text comes from there, None if what is there was left out."""
        piece = bisect_right(self._from, origin) - 1
        if piece < 0:
            return None
        at = self._at[piece] + origin - self._from[piece]
        is_left_out = piece + 1 < len(self._at) and at >= self._at[piece + 1]
        return None if is_left_out else at
