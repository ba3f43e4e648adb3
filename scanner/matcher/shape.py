"""A pattern's expression read once: its width, its constant prefix, and its form for Hyperscan.

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
class Shape:
    """What the matcher must know of an expression; widths in bytes."""

    min_width: int
    max_width: int
    literal_prefix: int  # leading bytes that are the same in every match
    hyperscan: str


def read_shape(regex: str) -> Shape:
    """Parse `regex` (over bytes, ASCII). Errors: `ShapeError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "possible nested set": the two engines would differ
            tree = parser.parse(regex.encode("ascii"))
            low, high = tree.getwidth()
            return Shape(low, high, _prefix(tree), _sequence(tree, tree.state.flags))
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


def _prefix(tree: Any) -> int:
    if tree.state.flags & re.IGNORECASE:
        return 0
    count = 0
    for code, _ in tree:
        if code is not op.LITERAL:
            break
        count += 1
    return count


def _sequence(nodes: Iterable[tuple[Any, Any]], flags: int) -> str:
    return "".join(_node(code, argument, flags) for code, argument in nodes)


def _node(code: Any, argument: Any, flags: int) -> str:
    if flags & _REFUSED_FLAGS:
        raise ShapeError("it must not depend on the locale")
    leaf = _leaf(code, argument, flags)
    if leaf is not None:
        return _write(leaf)
    if code is op.BRANCH:
        return "(?:" + "|".join(_sequence(branch, flags) for branch in argument[1]) + ")"
    if code is op.SUBPATTERN:
        _, added, removed, nodes = argument
        return "(?:" + _sequence(nodes, (flags | added) & ~removed) + ")"
    if code is op.MAX_REPEAT or code is op.MIN_REPEAT:
        low, high, nodes = argument
        most = "" if high is op.MAXREPEAT else int(high)
        return f"(?:{_sequence(nodes, flags)}){{{int(low)},{most}}}"
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


def _write(members: frozenset[int]) -> str:
    """Write a byte set as a class of ranges. An empty one cannot match and needs no scan."""
    if not members:
        raise ShapeError("it has a character class that matches nothing")
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
