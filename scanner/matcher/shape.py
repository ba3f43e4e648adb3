"""A pattern's expression read once: its width, its constant prefix, and its parts.

`re` and Hyperscan read some expressions differently (`a{,5}`, `[[:alpha:]]`, `$`), and a difference
would be a missed token. So Hyperscan never sees the author's text: it gets an expression written
anew from the parsed tree, in the few constructs on which both agree. Everything else is refused.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# The parser is the only exact source of an expression's width; `sre_parse` is its deprecated name.
from re import _constants as op  # type: ignore[attr-defined]  # isort: skip
from re import _parser as parser  # type: ignore[attr-defined]  # isort: skip

_REFUSED_FLAGS = re.LOCALE | re.DEBUG
_BYTES = range(256)
_CATEGORIES = {
    op.CATEGORY_DIGIT: rb"\d",
    op.CATEGORY_NOT_DIGIT: rb"\D",
    op.CATEGORY_SPACE: rb"\s",
    op.CATEGORY_NOT_SPACE: rb"\S",
    op.CATEGORY_WORD: rb"\w",
    op.CATEGORY_NOT_WORD: rb"\W",
}


class ShapeError(ValueError):
    """The expression is not one the matcher can take; the message says why."""


@dataclass(frozen=True, slots=True)
class Byte:
    """One byte out of a set."""

    members: frozenset[int]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`nodes` again and again, `low` to `high` times; None: without an end."""

    nodes: Nodes
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Branch:
    """One of several sequences."""

    choices: tuple[Nodes, ...]


Node = Byte | Repeat | Branch
Nodes = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """What the matcher must know of an expression; widths in bytes."""

    min_width: int
    max_width: int
    literal_prefix: int  # leading bytes that are the same in every match
    nodes: Nodes


def read_shape(regex: str) -> Shape:
    """Parse `regex` (over bytes, ASCII). Errors: `ShapeError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "possible nested set": the two engines would differ
            tree = parser.parse(regex.encode("ascii"))
            low, high = tree.getwidth()
            nodes = _sequence(tree, tree.state.flags)
            return Shape(low, high, _prefix(nodes), nodes)
    except RecursionError:
        raise ShapeError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ShapeError(r"it must be ASCII; write other bytes as \x..") from None
    except (re.error, OverflowError, Warning) as error:
        raise ShapeError(str(error)) from None


def byte_class(body: str) -> frozenset[int]:
    """Return the bytes of the character class `[body]`. Errors: `ShapeError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            nodes = list(parser.parse(f"[{body}]".encode("ascii")))
    except (re.error, Warning, UnicodeEncodeError) as error:
        raise ShapeError(f"[{body}] is not a character class: {error}") from None
    leaf = _leaf(nodes[0][0], nodes[0][1], 0) if len(nodes) == 1 else None
    if leaf is None:
        raise ShapeError(f"[{body}] is not one character class")
    return leaf


def write(nodes: Nodes) -> str:
    """Return `nodes` as an expression that `re` and Hyperscan read alike."""
    return "".join(map(_write, nodes))


def widths(nodes: Nodes) -> tuple[int, int | None]:
    """Return the least and greatest number of bytes `nodes` match; None: without an end."""
    least = 0
    most: int | None = 0
    for node in nodes:
        low, high = _widths(node)
        least += low
        most = None if most is None or high is None else most + high
    return least, most


def _widths(node: Node) -> tuple[int, int | None]:
    if isinstance(node, Byte):
        return 1, 1
    if isinstance(node, Branch):
        all_widths = [widths(choice) for choice in node.choices]
        highs = [high for _, high in all_widths]
        most = None if None in highs else max(high or 0 for high in highs)
        return min(low for low, _ in all_widths), most
    low, high = widths(node.nodes)
    return low * node.low, None if high is None or node.high is None else high * node.high


def _prefix(nodes: Nodes) -> int:
    count = 0
    for node in nodes:
        if not isinstance(node, Byte) or len(node.members) > 1:
            break
        count += 1
    return count


def _sequence(nodes: Iterable[tuple[Any, Any]], flags: int) -> Nodes:
    read: list[Node] = []
    for code, argument in nodes:
        if code is op.SUBPATTERN and not flags & _REFUSED_FLAGS:
            # A group is its contents: what repeats it stands around it.
            _, added, removed, inner = argument
            read += _sequence(inner, (flags | added) & ~removed)
        else:
            read.append(_node(code, argument, flags))
    return tuple(read)


def _node(code: Any, argument: Any, flags: int) -> Node:
    if flags & _REFUSED_FLAGS:
        raise ShapeError("it must not depend on the locale")
    leaf = _leaf(code, argument, flags)
    if leaf is not None:
        if not leaf:
            raise ShapeError("it has a character class that matches nothing")
        return Byte(leaf)
    if code is op.BRANCH:
        return Branch(tuple(_sequence(branch, flags) for branch in argument[1]))
    if code is op.MAX_REPEAT or code is op.MIN_REPEAT:
        low, high, nodes = argument
        return Repeat(
            _sequence(nodes, flags), int(low), None if high is op.MAXREPEAT else int(high)
        )
    construct = str(code).lower()
    raise ShapeError(
        f"it uses {construct}; anchors, look-around, back-references, atomic groups and possessive"
        " repeats are not supported (say in bounds what may not touch the token)"
    )


def _leaf(code: Any, argument: Any, flags: int) -> frozenset[int] | None:
    """The set of bytes a one-byte node matches; None for any other node."""
    negate = code is op.NOT_LITERAL
    if code is op.LITERAL or negate:
        members = {int(argument)}
    elif code is op.ANY:
        return frozenset(_BYTES) - (frozenset() if flags & re.DOTALL else {0x0A})
    elif code is op.IN:
        members = set()
        for kind, value in argument:
            if kind is op.NEGATE:
                negate = True
            elif kind is op.LITERAL:
                members.add(int(value))
            elif kind is op.RANGE:
                members.update(range(value[0], value[1] + 1))
            else:
                category = re.compile(_CATEGORIES[value])
                members.update(b for b in _BYTES if category.match(bytes((b,))))
    else:
        return None
    if flags & re.IGNORECASE:
        members.update(bytes(members).swapcase())
    return frozenset(_BYTES) - members if negate else frozenset(members)


def _write(node: Node) -> str:
    if isinstance(node, Byte):
        return _write_class(node.members)
    if isinstance(node, Branch):
        return "(?:" + "|".join(map(write, node.choices)) + ")"
    most = "" if node.high is None else node.high
    return f"(?:{write(node.nodes)}){{{node.low},{most}}}"


def _write_class(members: frozenset[int]) -> str:
    """Write a byte set as a class of ranges."""
    ordered = sorted(members)
    ranges: list[tuple[int, int]] = []
    for byte in ordered:
        if ranges and byte == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], byte)
        else:
            ranges.append((byte, byte))
    if len(ordered) == 1:
        return f"\\x{ordered[0]:02x}"
    return "[" + "".join(f"\\x{low:02x}-\\x{high:02x}" for low, high in ranges) + "]"
