"""Plain text brought to 72 columns, and times as people read them."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime

COLUMNS = 72
_SIGNATURE = "-- "  # RFC 3676: mail programs know it by its space
# What a line starts with; what follows is wrapped beneath its own beginning, not beneath this.
_HANG = re.compile(r"\s*(?:\d+\.\s+|-\s+|[A-Z][A-Za-z ]*:\s{2,})?")
_LINK = re.compile(r"https?://")


def columns(text: str) -> int:
    """Return how many terminal columns `text` takes; East Asian wide characters take two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def wrap(text: str, width: int = COLUMNS) -> str:
    """Break every line of `text` at `width`. Links stay whole, whatever their length."""
    lines = [
        piece
        for line in text.splitlines()
        for piece in ([line] if line == _SIGNATURE else _wrap_line(line.rstrip(), width))
    ]
    # Templates leave blank lines where a condition was false.
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _wrap_line(line: str, width: int) -> list[str]:
    if columns(line) <= width:
        return [line]
    head = _HANG.match(line)
    lead = head[0] if head else ""
    lines: list[str] = []
    current = lead
    for word in line[len(lead) :].split():
        gap = " " if current.strip() and current != lead else ""
        if columns(current + gap + word) <= width:
            current += gap + word
            continue
        if current.strip() and current != lead:
            lines.append(current)
            current = " " * len(lead)
        if _LINK.match(word):
            current += word
            continue
        rest = word
        while columns(current + rest) > width:
            size = max(1, width - len(lead))
            while size > 1 and columns(rest[:size]) > width - len(lead):
                size -= 1
            lines.append(current + rest[:size])
            current, rest = " " * len(lead), rest[size:]
        current += rest
    return [*lines, current] if current.strip() else lines


def when(iso: str, seconds: bool = False) -> str:
    """Return an ISO 8601 time as "24 November 2026, 14:03 UTC", with `seconds` "14:03:12"."""
    moment = datetime.fromisoformat(iso).astimezone(UTC)
    clock = moment.strftime("%H:%M:%S" if seconds else "%H:%M")
    return f"{moment.day} {moment:%B %Y}, {clock} UTC"
