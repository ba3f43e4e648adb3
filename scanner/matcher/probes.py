"""What Hyperscan looks for: for each pattern its plain form, and its anchors in each encoding.

Where a probe is met, a window opens in which the token lies whole, if there is one; what is in the
window is then decoded and read by the reference expression. So a probe may report too much, at the
price of time, and must never report too little.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import groupby
from math import ceil, log2

from scanner.matcher.anchor import Anchor, Sets, anchors
from scanner.matcher.images import broken, images
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

_ENOUGH = 64.0  # bits that a beginning tells, for the core to end where it varies at all
_FEW = 64  # bytes by which a part may vary before the core ends there
_BREAK = "[%\\x22\\x27\\x5c\\x60]"  # an escape's sign, or the end of a string
_FEWER_BITS = 24.0  # of an anchor whose tail tells the rest
_UNRESERVED = frozenset(b"-._~" + string.ascii_letters.encode() + string.digits.encode())
_WIDEST_LEAST_TWICE = (
    4  # characters in each alignment, for a kind to be looked for in base64 of base64
)
_CLOSED_TAIL = 5  # bytes after an anchor, of those that are never escaped
_SHORT = 3  # bytes of an anchor that begin many words: more must follow
_ZERO = frozenset({0})
_LEAST_TWICE = 4  # characters in each alignment, for a kind to be looked for in base64 of base64
_ZERO = frozenset({0})
_WIDEST = 24  # characters of an anchor in base64, and an end of line
# Escapes and seams make a token longer than itself; what is longer than this is not looked at.
_STRETCH = 1.5
_SLACK = 64

# Raise it whenever any expression or probe of the same patterns changes: databases of before are
# not used any more then.
EDITION = "5"


class Form(StrEnum):
    """How a token is written where a probe looks for it."""

    PLAIN = "plain"
    UTF_16 = "utf-16"
    BASE64 = "base64"
    BASE64_LINES = "base64-lines"  # the anchor has a line's end in it
    BASE64_TWICE = "base64-base64"  # a registry's login in a Kubernetes secret
    BASE64_UTF_16 = "base64-utf-16"  # a command that is handed to PowerShell
    ESCAPED = "escaped"


@dataclass(frozen=True, slots=True)
class Probe:
    """What to make of one expression of the database. Where it reports an end, a token lies in the
    window from `back` bytes before to `forward` bytes after (for base64: characters).

    `phase`, of base64: how many characters stand between the start of the group of four in which
    the anchor begins and the last one of the expression; None: the expression does not tell.
    """

    rule: int
    form: Form
    reach: int  # the greatest width of the expression itself, in bytes
    back: int
    forward: int
    phase: int | None = None


def probes(rule: int, shape: Shape) -> Iterator[tuple[Probe, str]]:
    """Yield the probes of one pattern and their expressions; after the plain one, those that its
    anchors allow."""
    yield _plain(rule, shape)
    for anchor in anchors(shape.nodes, shape.max_width, _UNRESERVED, _FEWER_BITS):
        yield _escaped(rule, shape, anchor)
    for anchor in anchors(shape.nodes, shape.max_width):
        yield _utf_16(rule, shape, anchor)
        yield from _base64(rule, shape, anchor)


@lru_cache(maxsize=1_024)
def forms(regex: str) -> frozenset[Form]:
    """Return the forms in which tokens of `regex` are looked for. Errors: `ShapeError`."""
    return frozenset(probe.form for probe, _ in probes(0, read_shape(regex)))


def core(nodes: Nodes) -> Nodes:
    """Return nodes with which every match of `nodes` begins, and which end seldom.

    A tail of variable width goes down to its least: it would report an end a byte. A variable
    part in the middle ends the core, where it is long or what stands before it tells enough.
    """
    kept: list[Node] = []
    bits = 0.0
    for node in nodes:
        low, high = widths((node,))
        if high is None or high - low > (_FEW if bits < _ENOUGH else 0):
            kept += _least(node)
            break
        bits += _bits(node)
        kept.append(node)
    trimmed = _trim(tuple(kept))
    if anchors(trimmed, 0) or not anchors(nodes, 0):
        return trimmed or nodes
    return nodes


def _bits(node: Node) -> float:
    """How much a match of `node` tells, at least."""
    if isinstance(node, Byte):
        return 8 - log2(len(node.members))
    if isinstance(node, Repeat):
        return node.low * sum(map(_bits, node.nodes))
    return min(sum(map(_bits, choice)) for choice in node.choices)


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
    """An anchor and what follows it in a token, or as much of it as stands before an escape."""
    before, after = _around(shape, anchor)
    tail = anchor.tail
    # Where no byte needs an escape, only a string's seam could stand in it: then it is shorter.
    if all(members <= _UNRESERVED for members in tail):
        tail, ways = tail[: _CLOSED_TAIL if len(anchor.sets) > _SHORT else None], []
    else:
        ways = [write(_run(tail[:count])) + _BREAK for count in range(len(tail))]
    if tail:
        ways.append(write(_run(tail)))
    probe = Probe(
        rule,
        Form.ESCAPED,
        len(anchor.sets) + len(tail),
        ceil(before * _STRETCH) + _SLACK + len(tail),
        ceil(after * _STRETCH) + _SLACK,
    )
    written = write(tuple(map(Byte, anchor.sets)))
    return probe, f"{written}(?:{'|'.join(ways)})" if ways else written


def _run(sets: Sets) -> Nodes:
    """Bytes of `sets`, as repeats where they are the same."""
    runs = ((members, len(list(same))) for members, same in groupby(sets))
    return tuple(Repeat((Byte(members),), count, count) for members, count in runs)


def _utf_16(rule: int, shape: Shape, anchor: Anchor) -> tuple[Probe, str]:
    before, after = _around(shape, anchor)
    spaced = "\\x00".join(write((Byte(members),)) for members in anchor.sets)
    reach = 2 * len(anchor.sets) - 1
    return Probe(rule, Form.UTF_16, reach, 2 * before + 2, 2 * after + 2), spaced


def _base64(rule: int, shape: Shape, anchor: Anchor) -> Iterator[tuple[Probe, str]]:
    before, after = _around(shape, anchor)
    wide = tuple(members for one in anchor.sets for members in (one, _ZERO))
    once = [image for image in images(anchor.sets) if image.sets]
    if not once:
        return
    for image in once:
        written = "".join(image.written)
        yield _in_base64(rule, Form.BASE64, (written,), before, after, image.phase)
    halves = tuple(broken(once))
    if halves:
        yield _in_base64(rule, Form.BASE64_LINES, halves, before, after)
    wide_images = ("".join(image.written) for image in images(wide) if image.sets)
    yield _in_base64(rule, Form.BASE64_UTF_16, wide_images, 2 * before, 2 * after)
    twice = [image for one in once for image in images(one.sets)]
    if min(len(image.sets) for image in twice) >= _LEAST_TWICE:
        ways = ("".join(image.written) for image in twice)
        yield _in_base64(rule, Form.BASE64_TWICE, ways, before * 4 // 3 + 8, after * 4 // 3 + 8)


def _in_base64(
    rule: int,
    form: Form,
    ways: Iterable[str],
    before: int,
    after: int,
    phase: int | None = None,
) -> tuple[Probe, str]:
    """`before`, `after`: the most decoded bytes of a token on either side of the anchor's end."""
    reach = 2 * _WIDEST
    probe = Probe(rule, form, reach, before * 4 // 3 + reach, after * 4 // 3 + reach, phase)
    return probe, "(?:" + "|".join(dict.fromkeys(ways)) + ")"


def _around(shape: Shape, anchor: Anchor) -> tuple[int, int]:
    """The most bytes of a token before and after the end of its anchor."""
    width = len(anchor.sets)
    return anchor.high + width, shape.max_width - anchor.low - width
