"""Lists in pages: a cursor says where the last page ended, so that rows which come or go meanwhile
neither repeat nor skip others."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scanner.db.tokens import Row
from scanner.errors import RequestInvalidError

MOST_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a list, as plain values; `cursor` leads to the next ones, if there are any."""

    rows: list[dict[str, Any]]
    cursor: str | None


def page(
    rows: Sequence[Row],
    limit: int,
    to_plain: Callable[[Row], dict[str, Any]],
    place: Callable[[Row], Sequence[int | str]],
) -> Page:
    """Make a page of up to `limit + 1` rows; `place` names the columns that order them."""
    shown = [to_plain(row) for row in rows[:limit]]
    if len(rows) <= limit:
        return Page(shown, None)
    packed = json.dumps(list(place(rows[limit - 1])), separators=(",", ":")).encode()
    return Page(shown, base64.urlsafe_b64encode(packed).rstrip(b"=").decode())


def place_of(cursor: str | None, kinds: Sequence[type]) -> tuple[Any, ...] | None:
    """Return the values a cursor stands for, of these types. Errors: `RequestInvalidError`."""
    if cursor is None:
        return None
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
    except ValueError:  # of base64, of UTF-8 or of JSON
        place = None
    if (
        not isinstance(place, list)
        or [type(value) for value in place] != list(kinds)
        or any("\0" in value for value in place if isinstance(value, str))
        or any(abs(value) >= 1 << 63 for value in place if isinstance(value, int))
    ):
        raise RequestInvalidError("The cursor is none that a list gave.")
    return tuple(place)


def rows_of(limit: int) -> int:
    """Return how many rows to ask for. Errors: `RequestInvalidError`."""
    if not 1 <= limit <= MOST_ROWS:
        raise RequestInvalidError(f"The limit is a number from 1 to {MOST_ROWS}.")
    return limit + 1
