"""The bytes of a pattern by which its tokens are recognised, whatever they are wrapped in.

Nearly every format has a few bytes that are the same in every token. An encoding turns these into
bytes that can be looked for just as well; only where they are met is anything decoded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

from scanner.matcher.shape import Branch, Byte, Node, Nodes, Repeat, widths

_LEAST_LITERALS = 3  # bytes in a row that are the same in every token
LEAST_BITS = 32.0  # of knowledge in an anchor: met by chance once in four billion random bytes
_MOST_LITERALS = 6  # more would only make the database larger
_MOST_BYTES = 8
_MOST_WAYS = 16  # through alternatives
_TAIL = 8
_SPELLED = 16  # bytes of a repeat that are looked at one by one
_SAME = 2  # members of a byte that is "the same": one, or both cases of a letter
ANY = frozenset(range(256))
Sets = tuple[frozenset[int], ...]  # of the bytes that may stand in each place


@dataclass(frozen=True, slots=True)
class Anchor:
    """Bytes (a set for each) that stand `low` to `high` bytes after the start of a token, and some
    that follow them."""

    sets: Sets
    low: int
    high: int
    tail: Sets = ()


def anchors(
    nodes: Nodes,
    most_offset: int,
    allowed: frozenset[int] = ANY,
    least_bits: float = LEAST_BITS,
) -> tuple[Anchor, ...]:
    """Return anchors one of which every match of `nodes` holds; none if some match has none.

    `most_offset` stands in for an offset without an end. Only `allowed` bytes stand in an
    anchor, and it holds `least_bits` of knowledge.
    """
    found: dict[Anchor, None] = {}
    for way in _ways(nodes):
        best = _best(way, most_offset, allowed, least_bits)
        if best is None:
            return ()
        found[best] = None
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Gap:
    low: int
    high: int | None


_Way = tuple[Byte | _Gap, ...]


def _ways(nodes: Nodes) -> list[_Way]:
    ways: list[_Way] = [()]
    for node in nodes:
        choices = _spell(node)
        if len(ways) * len(choices) > _MOST_WAYS:
            choices = [(_Gap(*widths((node,))),)]
        ways = [way + choice for way in ways for choice in choices]
    return ways


def _spell(node: Node) -> list[_Way]:
    """The ways through one node, each as single bytes and gaps."""
    if isinstance(node, Byte):
        return [(node,)]
    if isinstance(node, Branch):
        return [way for choice in node.choices for way in _ways(choice)]
    low, high = widths((node,))
    copies = min(node.low, _SPELLED // max(1, widths(node.nodes)[0]))
    once = _ways(node.nodes)
    if not copies or len(once) > 1:
        return [(_Gap(low, high),)]
    rest = _rest(node, copies)
    gap = () if rest == (0, 0) else (_Gap(*rest),)
    return [once[0] * copies + gap]


def _rest(node: Repeat, copies: int) -> tuple[int, int | None]:
    high = None if node.high is None else node.high - copies
    return widths((Repeat(node.nodes, node.low - copies, high),))


def _best(way: _Way, most_offset: int, allowed: frozenset[int], least_bits: float) -> Anchor | None:
    """The most telling anchor of one way; the earliest of equals."""
    best: tuple[tuple[int, int, int], Anchor] | None = None
    low = high = 0
    for is_gap, items in groupby(way, lambda item: isinstance(item, _Gap)):
        run = list(items)
        if is_gap:
            for gap in (item for item in run if isinstance(item, _Gap)):
                low += gap.low
                high = min(most_offset, high + (most_offset if gap.high is None else gap.high))
            continue
        sets = tuple(item.members for item in run if isinstance(item, Byte))
        for worth, begin, end in _stretches(sets, allowed, least_bits):
            if best is None or worth > best[0]:
                tail = sets[end : end + _TAIL]
                best = worth, Anchor(sets[begin:end], low + begin, high + begin, tail)
        low, high = low + len(sets), high + len(sets)
    return None if best is None else best[1]


def _stretches(
    sets: Sets, allowed: frozenset[int], least_bits: float
) -> list[tuple[tuple[int, int, int], int, int]]:
    """The stretches of `sets` that tell enough: (worth, begin, end)."""
    found = []
    for begin in range(len(sets)):
        literals = 0
        for members in sets[begin:]:
            if len(members) > _SAME or not members <= allowed:
                break
            literals += 1
        literals = min(literals, _MOST_LITERALS)
        if literals < _LEAST_LITERALS:
            continue
        end, bits = begin + literals, _bits(sets[begin : begin + literals])
        for members in sets[end : begin + _MOST_BYTES]:
            if bits >= least_bits or not members <= allowed:
                break
            bits += _bits((members,))
            end += 1
        if bits >= least_bits:
            distinct = len(set(sets[begin : begin + literals]))
            found.append(((literals, distinct, begin - end), begin, end))
    return found


def _bits(sets: Sets) -> float:
    return sum(8 - math.log2(len(members)) for members in sets)
