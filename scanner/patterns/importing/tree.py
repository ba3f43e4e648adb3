"""An expression as a tree over bytes, without flags: what it may begin with, and its text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

EVERY = frozenset(range(256))
WORD = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
_MOST_SPELLINGS = 2_000
_FEW = 8  # members of a class that is spelled out
_GAP = "\0"  # in a spelling: bytes that are not the same in every match
_UPPER = frozenset(range(0x41, 0x5B))


class EdgeKind(StrEnum):
    """An assertion that takes no bytes."""

    WORD = r"\b"
    NOT_WORD = r"\B"
    START = "^"
    END = "$"
    LINE_START = "(?m)^"
    LINE_END = "(?m)$"


_EDGES = {
    EdgeKind.WORD: r"\b", EdgeKind.NOT_WORD: r"\B", EdgeKind.START: r"\A", EdgeKind.END: r"\Z",
    EdgeKind.LINE_START: "(?m:^)", EdgeKind.LINE_END: r"(?:\Z|(?=\n))",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bytes:
    """One byte out of a set."""

    members: frozenset[int]


@dataclass(frozen=True, slots=True)
class Edge:
    """An assertion."""

    kind: EdgeKind


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other; empty: nothing."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several, the first that fits."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same `low` to `high` times; None: without end."""

    node: Node
    low: int
    high: int | None
    is_lazy: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A part that is captured."""

    node: Node
    number: int
    name: str | None


Node = Bytes | Edge | Sequence | Choice | Repeat | Group


def flat(node: Node) -> Iterator[Node]:
    """Yield what stands one after the other in `node`."""
    if isinstance(node, Sequence):
        for item in node.items:
            yield from flat(item)
    else:
        yield node


def parts(node: Node) -> Iterator[Node]:
    """Yield `node` and everything in it."""
    yield node
    match node:
        case Sequence(items) | Choice(items):
            for item in items:
                yield from parts(item)
        case Repeat(inner) | Group(inner):
            yield from parts(inner)


def width(node: Node) -> tuple[int, int | None]:  # noqa: PLR0911 (one a kind of node)
    """Return the fewest and the most bytes that match; None: any number."""
    match node:
        case Bytes():
            return 1, 1
        case Edge():
            return 0, 0
        case Sequence(items):
            widths = [width(item) for item in items]
            return sum(low for low, _ in widths), _sum(high for _, high in widths)
        case Choice(branches):
            widths = [width(branch) for branch in branches]
            highs = [high for _, high in widths]
            known = [high for high in highs if high is not None]
            return min(low for low, _ in widths), max(known) if len(known) == len(highs) else None
        case Repeat(inner, low, high):
            least, most = width(inner)
            if most == 0 or high == 0:
                return 0, 0
            return least * low, None if most is None or high is None else most * high
        case Group(inner):
            return width(inner)


def _sum(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def begins(node: Node, *, last: bool = False) -> frozenset[int]:
    """Return the bytes that a match may begin with (`last`: end with)."""
    match node:
        case Bytes(members):
            return members
        case Edge():
            return frozenset()
        case Sequence(items):
            found: frozenset[int] = frozenset()
            for item in reversed(items) if last else items:
                found |= begins(item, last=last)
                if width(item)[0]:
                    break
            return found
        case Choice(branches):
            return frozenset().union(*(begins(branch, last=last) for branch in branches))
        case Repeat(inner) | Group(inner):
            return begins(inner, last=last)


def spellings(node: Node) -> frozenset[str] | None:  # noqa: PLR0911 (as above)
    """Return all that a match may be, in lower case and with gaps for what varies; None when there
    are too many."""
    match node:
        case Bytes(members):
            letters = frozenset(bytes(members).lower())
            return frozenset(map(chr, letters)) if len(letters) <= _FEW else frozenset((_GAP,))
        case Edge():
            return frozenset(("",))
        case Sequence(items):
            return _joined([spellings(item) for item in items])
        case Choice(branches):
            found = [spellings(branch) for branch in branches]
            every = frozenset().union(*(one for one in found if one is not None))
            return every if None not in found and len(every) <= _MOST_SPELLINGS else None
        case Repeat(inner, low, high):
            if isinstance(inner, Bytes) and len(inner.members) > _FEW:
                return frozenset((_GAP,))
            once = spellings(inner)
            rest = [frozenset((_GAP,))] if high != low else []
            return _joined([*[once] * min(low, 4), *rest, *([] if low <= 4 else [frozenset(_GAP)])])
        case Group(inner):
            return spellings(inner)


def _joined(found: list[frozenset[str] | None]) -> frozenset[str] | None:
    every = frozenset(("",))
    for one in found:
        if one is None or len(every) * len(one) > _MOST_SPELLINGS:
            return None
        every = frozenset(left + right for left, right in product(every, one))
    return every


def capped(node: Node, cap: int) -> Node:
    """Return the same with an end: what has none is repeated at most `cap` times."""
    match node:
        case Sequence(items):
            return Sequence(tuple(capped(item, cap) for item in items))
        case Choice(branches):
            return Choice(tuple(capped(branch, cap) for branch in branches))
        case Repeat(inner, low, high, is_lazy):
            return Repeat(capped(inner, cap), low, max(low, cap) if high is None else high, is_lazy)
        case Group(inner, number, name):
            return Group(capped(inner, cap), number, name)
    return node


def write(node: Node) -> str:
    """Return the expression in the form of a pattern's `regex`."""
    sets = [one.members for one in parts(node) if isinstance(one, Bytes)]
    has_pairs = any(len(members) == 2 and members & _UPPER for members in sets)
    if has_pairs and all(members == _swapped(members) for members in sets):
        return f"(?i:{_write(node, is_folded=True)})"
    return _write(node, is_folded=False)


def _swapped(members: frozenset[int]) -> frozenset[int]:
    return frozenset(bytes(members).swapcase())


def _write(node: Node, *, is_folded: bool) -> str:
    match node:
        case Bytes(members):
            return _one(members, is_folded=is_folded)
        case Sequence(items):
            return "".join(
                f"(?:{_write(item, is_folded=is_folded)})"
                if isinstance(item, Choice)
                else _write(item, is_folded=is_folded)
                for item in items
            )
        case Choice(branches):
            return "|".join(_write(branch, is_folded=is_folded) for branch in branches)
        case Repeat(inner, low, high, is_lazy):
            text = _write(inner, is_folded=is_folded)
            if not isinstance(inner, Bytes):
                text = f"(?:{text})"
            times = "?" if (low, high) == (0, 1) else f"{{{low}}}" if low == high else None
            return text + (times or f"{{{low},{high}}}") + "?" * (is_lazy and low != high)
        case Group(inner):
            return f"(?:{_write(inner, is_folded=is_folded)})"
        case Edge(kind):
            return _EDGES[kind]


def _one(members: frozenset[int], *, is_folded: bool) -> str:
    if is_folded and members != EVERY:
        is_most = len(members) > 128
        members = frozenset(members if is_most else bytes(members).lower())
    if len(members) == 1:
        return _byte(next(iter(members)))
    return f"[{class_body(members)}]"


def class_body(members: frozenset[int]) -> str:
    """Return what stands between the brackets of a class with these members."""
    negate = len(members) > 128
    shown = sorted(EVERY - members if negate else members)
    if not shown:
        return r"\x00-\xff"
    ranges: list[list[int]] = []
    for byte in shown:
        if ranges and byte == ranges[-1][1] + 1:
            ranges[-1][1] = byte
        else:
            ranges.append([byte, byte])
    text = "".join(
        _byte(low) + ("" if low == high else ("-" if high > low + 1 else "") + _byte(high))
        for low, high in ranges
    )
    return f"^{text}" if negate else text


def _byte(byte: int) -> str:
    char = chr(byte)
    if (char.isalnum() and byte < 0x80) or char in "_ ":
        return char
    if 0x20 < byte < 0x7F:
        return f"\\{char}"
    return f"\\x{byte:02x}"
