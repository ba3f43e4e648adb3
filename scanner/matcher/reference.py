"""The definition of a match: Python's `re`, leftmost, greedy, bounded, without overlap.

A span is a match of the pattern's own expression, the bytes before and after which are outside the
classes of its bounds (an edge of the data is outside). Spans of one pattern are those of
`re.finditer`: from the left, each start with the end its expression prefers, none inside another.
Patterns do not see each other: two may claim the same bytes.
"""

from __future__ import annotations

import re

from scanner.matcher.pattern import Pattern


def expression(pattern: Pattern) -> re.Pattern[bytes]:
    """Return the pattern with its bounds as one compiled expression over bytes."""
    bounds_after = pattern.bounds if pattern.bounds_after is None else pattern.bounds_after
    before = f"(?<![{pattern.bounds}])" if pattern.bounds else ""
    after = f"(?![{bounds_after}])" if bounds_after else ""
    return re.compile(f"{before}(?:{pattern.regex}){after}".encode("ascii"))


def spans(pattern: Pattern, data: bytes) -> list[tuple[int, int]]:
    """Return every span the definition gives; slow and plain, the matcher must equal it."""
    return [found.span() for found in expression(pattern).finditer(data)]
