"""Expressions as Go's RE2, Rust's `regex` and Hyperscan write them, parsed into a tree over bytes.

Flags are worked in while reading, for they hold from where they stand to the end of the group,
which Python's `re` does not do. What is not understood for certain is refused.
Sources: RE2's syntax page, the documentation of Rust's regex crate.
"""

from __future__ import annotations

import re
from enum import StrEnum

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
)

_MOST_DEPTH = 60
_MOST_TEXT = 20_000
_MOST_REPEAT = 10_000
_DIGIT = frozenset(b"0123456789")
_LOWER = frozenset(range(0x61, 0x7B))
_UPPER = frozenset(range(0x41, 0x5B))
_PRINTED = frozenset(range(0x21, 0x7F))
_POSIX = {
    "alnum": _DIGIT | _LOWER | _UPPER, "alpha": _LOWER | _UPPER, "ascii": frozenset(range(128)),
    "blank": frozenset(b" \t"), "cntrl": frozenset((*range(32), 127)), "digit": _DIGIT,
    "graph": _PRINTED, "lower": _LOWER, "print": _PRINTED | {0x20}, "upper": _UPPER, "word": WORD,
    "punct": _PRINTED - _DIGIT - _LOWER - _UPPER, "space": frozenset(b" \t\n\r\f\v"),
    "xdigit": frozenset(b"0123456789abcdefABCDEF"),
}  # fmt: skip
_CONTROLS = {"n": 0x0A, "r": 0x0D, "t": 0x09, "f": 0x0C, "v": 0x0B, "a": 0x07}
_EDGES = {"b": EdgeKind.WORD, "B": EdgeKind.NOT_WORD, "A": EdgeKind.START, "z": EdgeKind.END}
_REPEAT = re.compile(r"\{(\d{1,9})(,(\d{0,9}))?\}")
_NAME = re.compile(r"P?<([A-Za-z_][A-Za-z0-9_]*)>")
_FLAGS = re.compile(r"([a-zA-Z]*)(?:-([a-zA-Z]+))?([:)])")
_HEX = re.compile(r"x([0-9a-fA-F]{2})|x\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})")
_CLASS_NAME = re.compile(r"\[:(\^?)([a-z]+):\]")
_LOOK_AROUND = ("?=", "?!", "?<=", "?<!")


class Dialect(StrEnum):
    """Whose expressions they are; where the two differ."""

    GO = "go"
    RUST = "rust"


class RefusedError(ValueError):
    """The rule cannot be expressed; the message says why."""


def parse(text: str, dialect: Dialect) -> Node:
    """Return the tree of an expression. Errors: `RefusedError`."""
    if len(text) > _MOST_TEXT:
        raise RefusedError("its expression is too long")
    parser = _Parser(text, dialect)
    node = parser.choice(0)
    if parser.position < len(text):
        raise RefusedError("its expression closes a group that it does not open")
    return node


class _Parser:
    def __init__(self, text: str, dialect: Dialect) -> None:
        self._text = text
        self._dialect = dialect
        self._flags: frozenset[str] = frozenset()
        self._groups = 0
        self.position = 0

    def choice(self, depth: int) -> Node:
        """Read up to the end of the group. Flags that are set in it end with it."""
        if depth > _MOST_DEPTH:
            raise RefusedError("its expression is nested too deeply")
        before = self._flags
        branches = [self._sequence(depth)]
        while self._take("|"):
            branches.append(self._sequence(depth))
        self._flags = before
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _sequence(self, depth: int) -> Node:
        items: list[Node] = []
        while True:
            self._skip()
            if self.position >= len(self._text) or self._text[self.position] in "|)":
                break
            atom = self._atom(depth)
            if atom is not None:
                items.append(self._repeated(atom))
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def _atom(self, depth: int) -> Node | None:  # noqa: PLR0911 (one a construct)
        char = self._text[self.position]
        self.position += 1
        match char:
            case "(":
                return self._group(depth)
            case "[":
                return Bytes(self._class(depth))
            case "\\":
                return self._escape()
            case ".":
                return Bytes(EVERY if "s" in self._flags else EVERY - {0x0A})
            case "^":
                return Edge(EdgeKind.LINE_START if "m" in self._flags else EdgeKind.START)
            case "$":
                return Edge(EdgeKind.LINE_END if "m" in self._flags else EdgeKind.END)
            case "*" | "+" | "?":
                raise RefusedError("its expression repeats nothing")
        return self._literal(char)

    def _repeated(self, atom: Node) -> Node:
        while True:
            self._skip()
            rest = self._text[self.position : self.position + 1]
            counted = _REPEAT.match(self._text, self.position) if rest == "{" else None
            if counted is not None:
                low = int(counted[1])
                high = low if counted[2] is None else int(counted[3]) if counted[3] else None
                self.position = counted.end()
            elif rest and rest in "*+?":
                low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[rest]
                self.position += 1
            else:
                return atom
            if low > _MOST_REPEAT or (high is not None and not low <= high <= _MOST_REPEAT):
                raise RefusedError("its expression repeats too often")
            is_lazy = self._take("?")
            if self._text[self.position : self.position + 1] == "+":
                raise RefusedError("it uses possessive repeats")
            atom = Repeat(atom, low, high, is_lazy)

    def _group(self, depth: int) -> Node | None:
        rest = self._text[self.position : self.position + 3]
        if rest.startswith(_LOOK_AROUND):
            raise RefusedError("it uses look-around")
        name, number = None, None
        before = self._flags
        if not rest.startswith("?"):
            number = self._number()
        else:
            self.position += 1
            if rest.startswith("?#"):
                end = self._text.find(")", self.position)
                if end < 0:
                    raise RefusedError("a comment in its expression has no end")
                self.position = end + 1
                return None
            if named := _NAME.match(self._text, self.position):
                name, number = named[1], self._number()
                self.position = named.end()
            elif flags := _FLAGS.match(self._text, self.position):
                self.position = flags.end()
                self._set(flags[1], flags[2] or "")
                if flags[3] == ")":
                    return None  # they hold to the end of the group around
            else:
                raise RefusedError("it uses a kind of group that is not known")
        node = self.choice(depth + 1)
        self._flags = before
        if not self._take(")"):
            raise RefusedError("its expression does not close a group")
        return node if number is None else Group(node, number, name)

    def _number(self) -> int:
        self._groups += 1
        return self._groups

    def _set(self, added: str, removed: str) -> None:
        if unknown := set(added + removed) - set("imsxu"):
            raise RefusedError(f"it uses the flag {min(unknown)}")
        # Bytes are what we match; "u" asks for characters, and all that is ASCII is the same.
        self._flags = (self._flags | set(added)) - set(removed)

    def _escape(self) -> Node:
        char = self._text[self.position : self.position + 1]
        if kind := _EDGES.get(char):
            self.position += 1
            return Edge(kind)
        members = self._escaped()
        return Bytes(self._folded(members))

    def _escaped(self) -> frozenset[int]:
        """Read what follows a backslash and stands for bytes."""
        if found := _HEX.match(self._text, self.position):
            self.position = found.end()
            value = int(found[1] or found[2] or found[3], 16)
            if value > 0x7F:
                raise RefusedError("it names characters that are not ASCII")
            return frozenset((value,))
        char = self._text[self.position : self.position + 1]
        self.position += 1
        spaces = b" \t\n\r\f" if self._dialect is Dialect.GO else b" \t\n\r\f\v"
        sets = {"d": _DIGIT, "w": WORD, "s": frozenset(spaces)}
        if char.lower() in sets:
            members = sets[char.lower()]
            return EVERY - members if char.isupper() else members
        if char in _CONTROLS:
            return frozenset((_CONTROLS[char],))
        if char.isdigit():
            raise RefusedError("it uses back-references or octal escapes")
        if not char or char.isalpha() or ord(char) > 0x7F:
            raise RefusedError(f"it uses the escape \\{char}")
        return frozenset((ord(char),))

    def _class(self, depth: int) -> frozenset[int]:
        if depth > _MOST_DEPTH:
            raise RefusedError("its expression is nested too deeply")
        negate = self._take("^")
        members: set[int] = set()
        is_first = True
        while True:
            if self._dialect is Dialect.RUST:
                self._skip()
            rest = self._text[self.position : self.position + 2]
            if not rest:
                raise RefusedError("a class in its expression has no end")
            if rest[0] == "]" and not is_first:
                self.position += 1
                break
            is_first = False
            if self._dialect is Dialect.RUST and rest in ("&&", "--", "~~"):
                raise RefusedError("it uses operations on classes")
            members |= self._class_item(depth)
        folded = self._folded(frozenset(members))
        return EVERY - folded if negate else folded

    def _class_item(self, depth: int) -> frozenset[int]:
        if named := _CLASS_NAME.match(self._text, self.position):
            if named[2] not in _POSIX:
                raise RefusedError(f"it uses the class {named[0]}")
            self.position = named.end()
            return EVERY - _POSIX[named[2]] if named[1] else _POSIX[named[2]]
        if self._dialect is Dialect.RUST and self._take("["):
            return self._class(depth + 1)
        low = self._class_end()
        rest = self._text[self.position : self.position + 2]
        if len(low) != 1 or len(rest) < 2 or rest[0] != "-" or rest[1] == "]":
            return low
        if self._dialect is Dialect.RUST and rest == "--":
            return low
        self.position += 1
        high = self._class_end()
        if len(high) != 1 or min(high) < min(low):
            raise RefusedError("a class in its expression has a range that is none")
        return frozenset(range(min(low), min(high) + 1))

    def _class_end(self) -> frozenset[int]:
        char = self._text[self.position]
        self.position += 1
        if char == "\\":
            if self._text[self.position : self.position + 1] == "b":
                raise RefusedError(r"it uses the escape \b in a class")
            return self._escaped()
        if ord(char) > 0x7F:
            raise RefusedError("it names characters that are not ASCII")
        return frozenset((ord(char),))

    def _literal(self, char: str) -> Node:
        encoded = char.encode("utf-8", "surrogatepass")
        items = tuple(Bytes(self._folded(frozenset((byte,)))) for byte in encoded)
        return items[0] if len(items) == 1 else Sequence(items)

    def _folded(self, members: frozenset[int]) -> frozenset[int]:
        return members | frozenset(bytes(members).swapcase()) if "i" in self._flags else members

    def _take(self, char: str) -> bool:
        if self._text[self.position : self.position + 1] != char:
            return False
        self.position += 1
        return True

    def _skip(self) -> None:
        """Skip what the flag "x" lets people write between."""
        while "x" in self._flags and self.position < len(self._text):
            if self._text[self.position].isspace():
                self.position += 1
            elif self._text[self.position] == "#":
                end = self._text.find("\n", self.position)
                self.position = len(self._text) if end < 0 else end + 1
            else:
                break
