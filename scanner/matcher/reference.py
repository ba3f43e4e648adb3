"""The definition of a match: Python's `re`, leftmost, greedy, bounded, without overlap.

A span is a match of the pattern's own expression, the bytes before and after which are outside the
class `bounds` (an edge of the data is outside). Spans of one pattern are those of `re.finditer`:
from the left, each start with the end its expression prefers, none inside another. Patterns do not
see each other: two may claim the same bytes.
"""

from __future__ import annotations

import re

from scanner.matcher.pattern import Pattern


def expression(pattern: Pattern) -> re.Pattern[bytes]:
    """Return the pattern with its bounds as one compiled expression over bytes."""
    if not pattern.bounds:
        return re.compile(f"(?:{pattern.regex})".encode("ascii"))
    bounds = f"[{pattern.bounds}]"
    return re.compile(f"(?<!{bounds})(?:{pattern.regex})(?!{bounds})".encode("ascii"))


def spans(pattern: Pattern, data: bytes) -> list[tuple[int, int]]:
    """Return every span the definition gives; slow and plain, the matcher must equal it."""
    return [found.span() for found in expression(pattern).finditer(data)]
