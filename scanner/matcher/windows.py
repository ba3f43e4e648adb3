"""Stretches of the data in which a token may lie, joined where they touch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Windows = list[tuple[int, int]]  # (first byte, one past the last), in order, apart from each other


def around(ends: Sequence[int], back: int, forward: int, size: int) -> Windows:
    """Return [end - back, end + forward] of each of `ends`, which come in order, within `size`."""
    if ends[-1] - ends[0] == len(ends) - 1:  # a long run of one alphabet ends everywhere
        return [(max(0, ends[0] - back), min(size, ends[-1] + forward))]
    return join((max(0, end - back), min(size, end + forward)) for end in ends)


def join(windows: Iterable[tuple[int, int]]) -> Windows:
    """Join what touches, of stretches that come in the order of their beginnings."""
    joined: Windows = []
    first, last = -1, -1
    for low, high in windows:
        if low > last:
            if last >= 0:
                joined.append((first, last))
            first, last = low, high
        elif high > last:
            last = high
    if last >= 0:
        joined.append((first, last))
    return joined
