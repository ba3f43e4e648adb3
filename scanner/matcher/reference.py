"""The definition of a match: Python's `re`, leftmost, greedy, bounded, without overlap."""

from __future__ import annotations

import re

from scanner.matcher.pattern import Pattern


def expression(pattern: Pattern) -> re.Pattern[bytes]:
    """Return the pattern with its bounds as one compiled expression over bytes."""
    bounds = f"[{pattern.bounds}]"
    return re.compile(f"(?<!{bounds})(?:{pattern.regex})(?!{bounds})".encode("ascii"))


def spans(pattern: Pattern, data: bytes) -> list[tuple[int, int]]:
    """Return every span the definition gives; slow and plain, the matcher must equal it."""
    return [found.span() for found in expression(pattern).finditer(data)]
