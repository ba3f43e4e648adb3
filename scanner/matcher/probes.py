"""What Hyperscan looks for: for each pattern its plain form, and its anchors in each encoding.

Where a probe is met, a window opens in which the token lies whole, if there is one; what is in the
window is then decoded and read by the reference expression. So a probe may report too much, at the
price of time, and must never report too little.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from math import ceil

from scanner.matcher.anchor import ANY, Anchor, anchors
from scanner.matcher.shape import (
    Branch,
    Byte,
    Node,
    Nodes,
    Repeat,
    Shape,
    read_shape,
    widths,
    write,
)

_FEW = 64  # bytes by which a part may vary before the core ends there
_JOIN = "(?:(?:\\x5cr)?\\x5cn|\\r?\\n[ \\t]*)"  # what may break a line of base64
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BREAK = "[%\\x22\\x27\\x5c\\x60]"  # an escape's sign, or the end of a string
_UNRESERVED = frozenset(b"-._~" + string.ascii_letters.encode() + string.digits.encode())
_URL_SAFE = {ord("+"): ord("-"), ord("/"): ord("_")}
_WIDEST_JOIN = 66
# Escapes and seams make a token longer than itself; what is longer than this is not looked at.
_STRETCH = 1.5
_SLACK = 64

# Raise it whenever any expression or probe of the same patterns changes: databases of before are
# not used any more then.
EDITION = "2"


class Form(StrEnum):
    """How a token is written where a probe looks for it."""

    PLAIN = "plain"
    UTF_16 = "utf-16"
    BASE64 = "base64"
    ESCAPED = "escaped"


@dataclass(frozen=True, slots=True)
class Probe:
    """What to make of one expression of the database. Where it reports an end, a token lies in the
    window from `back` bytes before to `forward` bytes after (for base64: characters).

    `phase`, of base64: how many characters stand between the start of the group of four in which
    the anchor begins and the last one of the expression.
    """

    rule: int
    form: Form
    reach: int  # the greatest width of the expression itself, in bytes
    back: int
    forward: int
    phase: int = 0


def probes(rule: int, shape: Shape) -> Iterator[tuple[Probe, str]]:
    """Yield the probes of one pattern and their expressions; after the plain one, those that its
    anchors allow."""
    yield _plain(rule, shape)
    for anchor in anchors(shape.nodes, shape.max_width, _UNRESERVED):
        yield _escaped(rule, shape, anchor)
    for anchor in anchors(shape.nodes, shape.max_width):
        yield _utf_16(rule, shape, anchor)
        for alignment in range(3):
            yield _base64(rule, shape, anchor, alignment)


def forms(regex: str) -> frozenset[Form]:
    """Return the forms in which tokens of `regex` are looked for. Errors: `ShapeError`."""
    return frozenset(probe.form for probe, _ in probes(0, read_shape(regex)))


def core(nodes: Nodes) -> Nodes:
    """Return nodes with which every match of `nodes` begins, and which end seldom.

    A tail of variable width goes down to its least: it would report an end for each byte. A long
    variable part in the middle ends the core, where what stands before it tells enough.
    """
    kept: list[Node] = []
    for node in nodes:
        low, high = widths((node,))
        if high is None or high - low > _FEW:
            kept += _least(node)
            break
        kept.append(node)
    trimmed = _trim(tuple(kept))
    if anchors(trimmed, 0) or not anchors(nodes, 0):
        return trimmed or nodes
    return nodes


def _trim(nodes: Nodes) -> Nodes:
    while nodes:
        low, high = widths(nodes[-1:])
        if low == high:
            return nodes
        least = _least(nodes[-1])
        nodes = nodes[:-1]
        if least:
            return (*nodes, *least)
    return nodes


def _least(node: Node) -> Nodes:
    """What every match of `node` begins with."""
    if isinstance(node, Branch):
        choices = tuple(_trim(choice) for choice in node.choices)
        return (Branch(choices),) if all(choices) else ()
    if isinstance(node, Repeat) and node.low:
        low, high = widths(node.nodes)
        return (Repeat(node.nodes, node.low, node.low),) if low == high else _trim(node.nodes)
    return (node,) if isinstance(node, Byte) else ()


def _plain(rule: int, shape: Shape) -> tuple[Probe, str]:
    nodes = core(shape.nodes)
    low, high = widths(nodes)
    reach = shape.max_width if high is None else high
    return Probe(rule, Form.PLAIN, reach, reach, shape.max_width - low), write(nodes)


def _escaped(rule: int, shape: Shape, anchor: Anchor) -> tuple[Probe, str]:
    """An anchor and what follows it in a token, or as much of that as stands before an escape."""
    before, after = _around(shape, anchor)
    tail = [write((Byte(members),)) for members in anchor.tail]
    ways = ["".join(tail), *("".join(tail[:count]) + _BREAK for count in range(len(tail)))]
    probe = Probe(
        rule,
        Form.ESCAPED,
        len(anchor.sets) + len(tail),
        ceil(before * _STRETCH) + _SLACK + len(tail),
        ceil(after * _STRETCH) + _SLACK,
    )
    return probe, write(tuple(map(Byte, anchor.sets))) + "(?:" + "|".join(ways) + ")"


def _utf_16(rule: int, shape: Shape, anchor: Anchor) -> tuple[Probe, str]:
    before, after = _around(shape, anchor)
    spaced = "\\x00".join(write((Byte(members),)) for members in anchor.sets)
    reach = 2 * len(anchor.sets) - 1
    return Probe(rule, Form.UTF_16, reach, 2 * before + 2, 2 * after + 2), spaced


def _base64(rule: int, shape: Shape, anchor: Anchor, alignment: int) -> tuple[Probe, str]:
    """`alignment`: how many bytes of the anchor's first group of three stand before it."""
    characters = _characters(anchor.sets, alignment)
    # Two: where a letter's case is open. Every fourth character holds no bit of it, and one such
    # character alone would be met everywhere.
    known = [index for index, one in enumerate(characters) if len(one) <= 2]
    first, last = known[0], known[-1]
    written = [
        write((Byte(one | {_URL_SAFE[c] for c in one if c in _URL_SAFE}),))
        for one in characters[first : last + 1]
    ]
    broken = [
        "".join(written[:cut]) + _JOIN + "".join(written[cut:]) for cut in range(1, len(written))
    ]
    before, after = _around(shape, anchor)
    probe = Probe(
        rule,
        Form.BASE64,
        len(written) + _WIDEST_JOIN,
        before * 4 // 3 + 8,
        after * 4 // 3 + 8,
        last,
    )
    return probe, "(?:" + "|".join(("".join(written), *broken)) + ")"


def _characters(sets: tuple[frozenset[int], ...], alignment: int) -> list[frozenset[int]]:
    """For each base64 character that holds bits of `sets`: which it can be."""
    padded = (*(ANY,) * alignment, *sets, *(ANY,) * 2)
    characters = []
    for index in range(-(-(alignment + len(sets)) * 8 // 6)):
        byte, shift = divmod(6 * index, 8)
        pairs = product(padded[byte], padded[byte + 1] if shift > 2 else (0,))
        sixes = {((one << 8 | two) >> (10 - shift)) & 63 for one, two in pairs}
        characters.append(frozenset(_BASE64[six] for six in sixes))
    return characters


def _around(shape: Shape, anchor: Anchor) -> tuple[int, int]:
    """The most bytes of a token before and after the end of its anchor."""
    width = len(anchor.sets)
    return anchor.high + width, shape.max_width - anchor.low - width
