"""Text from outside made safe to show: terminals, logs and tables.

A hostile repository chooses its paths, refs and names. Control characters move a terminal's cursor,
bidirectional overrides make a line read as something else, so both are shown as escapes.
"""

from __future__ import annotations

import unicodedata

# Control, format (bidi overrides, zero-width), surrogate, private use, unassigned; line separators.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str, limit: int = 1_000) -> str:
    """Return `text` with every character that could deceive a reader escaped, cut at `limit`
    characters, escapes included."""
    if len(text) <= limit and text.isprintable():  # most are; it forbids more than we do
        return text
    shown = "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _UNPRINTABLE
        else character
        for character in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
