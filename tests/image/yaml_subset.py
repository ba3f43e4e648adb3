"""Reads the part of YAML that compose.yaml is written in, and refuses the rest.

Block and flow mappings and sequences, anchors, aliases and merge keys, plain and double-quoted
scalars, comments. The locks hold no YAML library, and one test of one file needs none.
"""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?: (?P<punct>[\[\]{},]|:(?=\s|$)) | &(?P<anchor>[\w-]+) | \*(?P<alias>[\w-]+)
        | "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<plain>[^\s\[\]{},&*"'|>%@`!#?][^,\[\]{}]*?)
        (?=\s*(?:[,\[\]{}]|:\s|:$|$)) )""",
    re.VERBOSE,
)
_KEY = re.compile(r'(?P<key>"[^"]*"|[\w.<-]+):(?:\s+(?P<rest>.*))?$')


class _Reader:
    def __init__(self, text: str) -> None:
        self.anchors: dict[str, Any] = {}
        self.lines: list[tuple[int, str]] = []
        for raw in text.splitlines():
            line = re.sub(r"(?:^|\s)#(?=[^\"]*(?:\"[^\"]*\"[^\"]*)*$).*", "", raw).rstrip()
            if line:
                assert "\t" not in line, raw
                self.lines.append((len(line) - len(line.lstrip()), line.lstrip()))
        self.at = 0

    def block(self, indent: int) -> Any:
        """The mapping or sequence whose lines stand at `indent`."""
        if self.lines[self.at][1].startswith("- "):
            items = []
            while self.at < len(self.lines) and self.lines[self.at][0] == indent:
                _, line = self.lines[self.at]
                assert line.startswith("- "), line
                self.at += 1
                items.append(self.flow(line[2:]))
            return items
        made: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while self.at < len(self.lines) and self.lines[self.at][0] == indent:
            found = _KEY.match(self.lines[self.at][1])
            assert found, self.lines[self.at][1]
            self.at += 1
            key, value = found["key"].strip('"'), self.value(found["rest"] or "", indent)
            if key == "<<":
                merged |= value
            else:
                assert key not in made, f"{key} is there twice"
                made[key] = value
        assert self.at == len(self.lines) or self.lines[self.at][0] < indent, self.lines[self.at]
        return {**merged, **made}

    def value(self, rest: str, indent: int) -> Any:
        """What stands behind a key: on its line or, indented, below."""
        anchor = re.fullmatch(r"&([\w-]+)", rest)
        if rest and not anchor:
            return self.flow(rest)
        below = self.at < len(self.lines) and self.lines[self.at][0] > indent
        made = self.block(self.lines[self.at][0]) if below else None
        if anchor:
            self.anchors[anchor[1]] = made
        return made

    def flow(self, text: str) -> Any:
        """A value on one line."""
        tokens = []
        place = 0
        while place < len(text.rstrip()):
            found = _TOKEN.match(text, place)
            assert found, f"not in our part of YAML: {text[place:]}"
            tokens.append((found.lastgroup, found[found.lastgroup or 0]))
            place = found.end()
        made = self.take(tokens)
        assert tokens == [], text
        return made

    def take(self, tokens: list[tuple[str | None, str]]) -> Any:
        kind, text = tokens.pop(0)
        if kind == "anchor":
            made = self.anchors[text] = self.take(tokens)
            return made
        if kind == "alias":
            return self.anchors[text]
        if kind == "quoted":
            return text
        if kind == "plain":
            return scalar(text)
        if text == "[":
            items: list[Any] = []
            while tokens[0][1] != "]":
                items.append(self.take(tokens))
                if tokens[0][1] == ",":
                    tokens.pop(0)
            tokens.pop(0)
            return items
        assert text == "{", text
        pairs: dict[str, Any] = {}
        while tokens[0][1] != "}":
            key = str(self.take(tokens))
            assert tokens.pop(0)[1] == ":", key
            pairs[key] = self.take(tokens)
            if tokens[0][1] == ",":
                tokens.pop(0)
        tokens.pop(0)
        return pairs


def scalar(text: str) -> Any:
    """A plain scalar, as YAML 1.2 reads it."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d+\.\d+", text):
        return float(text)
    return None if text in ("", "null", "~") else text


def read(text: str) -> Any:
    """The document as Python values. Errors: `AssertionError`."""
    reader = _Reader(text)
    made = reader.block(0)
    assert reader.at == len(reader.lines)
    return made
