"""What stands around a secret in a rule's expression, as bounds: which bytes may not touch it.

A pattern is the token alone. One byte before and one after is all the context it has, so what asks
for more, as a name somewhere before, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from scanner.patterns.importing.syntax import RefusedError
from scanner.patterns.importing.tree import (
    EVERY,
    WORD,
    Bytes,
    Choice,
    Edge,
    EdgeKind,
    Group,
    Node,
    Repeat,
    Sequence,
    begins,
    flat,
    parts,
    width,
)

_MOST_AFTER = 2  # bytes of context of which the first is enough to say what follows
_CONTEXT = "its secret is told by what stands {}, not by its own form"


@dataclass
class Secret:
    """The token of a rule, and the bytes that may stand on either side of it."""

    node: Node
    before: frozenset[int] = EVERY
    after: frozenset[int] = EVERY
    notes: list[str] = field(default_factory=list)


def secret_of(tree: Node, number: int | None) -> Secret:
    """Return the secret: the group of that number, or the whole. Errors: `RefusedError`."""
    items = list(flat(tree))
    if number is not None:
        while not any(isinstance(item, Group) and item.number == number for item in items):
            if len(items) == 1 and isinstance(items[0], Group):
                items = list(flat(items[0].node))
                continue
            raise RefusedError("its secret stands in one of several alternatives")
        at = next(
            n for n, one in enumerate(items) if isinstance(one, Group) and one.number == number
        )
        before, token, after = items[:at], list(flat(items[at])), items[at + 1 :]
        while len(token) == 1 and isinstance(token[0], Group):
            token = list(flat(token[0].node))
    else:
        before, token, after = [], items, []
        while len(token) == 1 and isinstance(token[0], Group):
            token = list(flat(token[0].node))
    while token and _has_edge(token[0]):
        before.append(token.pop(0))
    while token and _has_edge(token[-1]):
        after.insert(0, token.pop())
    if not token:
        raise RefusedError("its secret is one of several, each with edges of its own")
    secret = Secret(token[0] if len(token) == 1 else Sequence(tuple(token)))
    for part in parts(secret.node):
        if isinstance(part, Edge):
            raise RefusedError(f"it uses {part.kind} inside the secret")
    if not width(secret.node)[0]:
        raise RefusedError("its secret may be empty")
    secret.before = _side(before, secret, last=False)
    secret.after = _side(after, secret, last=True)
    return secret


def _is_free(node: Node) -> bool:
    """Whether `node` may match nothing, and asks for nothing then."""
    match node:
        case Repeat(inner, low):
            return low == 0 or _is_free(inner)
        case Sequence(items):
            return all(map(_is_free, items))
        case Choice(branches):
            return any(map(_is_free, branches))
        case Group(inner):
            return _is_free(inner)
    return False


def _has_edge(node: Node) -> bool:
    return any(isinstance(part, Edge) for part in parts(node))


def _side(items: Items[Node], secret: Secret, *, last: bool) -> frozenset[int]:
    """Return the bytes that may stand on one side; an edge of the data always may."""
    ordered = list(items if last else reversed(items))
    # What may be nothing, at the far end, asks for nothing.
    while ordered and _is_free(ordered[-1]):
        ordered.pop()
    touching = begins(secret.node, last=last)
    allowed = EVERY
    for index, item in enumerate(ordered):
        allowed &= _allowed(item, touching, secret, last=last)
        if width(item)[1] != 0:
            rest = ordered[index + 1 :]
            if any(width(one)[0] or isinstance(one, Edge) for one in rest):
                raise RefusedError(_CONTEXT.format("after it" if last else "before it"))
            break
    return allowed


def _allowed(  # noqa: PLR0911 (one a kind of node)
    node: Node, touching: frozenset[int], secret: Secret, *, last: bool
) -> frozenset[int]:
    match node:
        case Edge(kind):
            return _edge(kind, touching, secret, last=last)
        case Bytes(members):
            return members
        case Choice(branches):
            found = (_allowed(branch, touching, secret, last=last) for branch in branches)
            return frozenset().union(*found)
        case Group(inner):
            return _allowed(inner, touching, secret, last=last)
        case Sequence(items) if not items:
            return EVERY
        case Sequence() | Repeat():
            most = width(node)[1]
            if last and most is not None and most <= _MOST_AFTER and width(node)[0]:
                secret.notes.append("of what must follow, only the first character is looked at")
                return begins(node)
            if not last and most == 1 and width(node)[0] == 1:
                return begins(node)
    raise RefusedError(_CONTEXT.format("after it" if last else "before it"))


def _edge(
    kind: EdgeKind, touching: frozenset[int], secret: Secret, *, last: bool
) -> frozenset[int]:
    if kind is EdgeKind.WORD:
        if touching.isdisjoint(WORD):
            return WORD
        if not touching <= WORD:
            secret.notes.append(r"\b beside a character such as - is read as: no letter beside it")
        return EVERY - WORD
    if kind is (EdgeKind.LINE_END if last else EdgeKind.LINE_START):
        return frozenset((0x0A,))
    if kind is (EdgeKind.END if last else EdgeKind.START):
        return frozenset()
    raise RefusedError(f"it uses {kind} beside the secret")
