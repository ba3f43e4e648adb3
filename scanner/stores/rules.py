"""What may be stored of a token, its owner and its organisation: the same on every database.

PostgreSQL refuses a text that is too long, or has a NUL; SQLite takes both. So texts are checked
here, and the refusal is one sentence that names the field. Control characters, and those that turn
text round, have no place in a name that stands in mails and tables.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

from scanner.errors import RequestInvalidError
from scanner.text import printable

_MOST_NAME, _MOST_SCOPE, _MOST_SCOPES = 200, 100, 100
_MOST_ADDRESS, _MOST_LOCAL_PART = 254, 64
_MOST_MASK = 32  # characters; a mask hides

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
_REFUSED = frozenset({"Cc", "Cs", "Co", "Cn", "Zl", "Zp"})
# Marks that turn the direction of text round; others of their kind join letters, and may stay.
_TURNING = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
)
_SCOPE = re.compile(rf"[\x21\x23-\x5b\x5d-\x7e]{{1,{_MOST_SCOPE}}}")  # RFC 6749, 3.3
_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_ROW_ID = re.compile(r"[0-9a-f]{24}")
_LOCAL_PART = re.compile(r"[^\s@<>()\[\],;:\\\"\x00-\x20\x7f]+")
_LABEL = re.compile(r"(?!-)[\w-]{1,63}(?<!-)")


def name(value: str, field: str, most: int = _MOST_NAME) -> str:
    """Return a name without the space around it. Errors: `RequestInvalidError`, here and below."""
    given = value.strip()
    if not given:
        raise RequestInvalidError(f"{field} is empty.")
    if len(given) > most:
        raise RequestInvalidError(f"{field} is longer than {most} characters.")
    if not (given.isascii() and given.isprintable()) and any(
        unicodedata.category(one) in _REFUSED or one in _TURNING for one in given
    ):
        raise RequestInvalidError(
            f"{field} holds a control character, or one that turns text round."
        )
    return given


def address(value: str | None, field: str) -> str | None:
    """Return an e-mail address; None and an empty text stay none."""
    given = (value or "").strip()
    if not given:
        return None
    local, _, domain = given.rpartition("@")
    labels = domain.split(".")
    if (
        len(given) > _MOST_ADDRESS
        or len(local) > _MOST_LOCAL_PART
        or not _LOCAL_PART.fullmatch(local)
        or local.startswith(".")
        or local.endswith(".")
        or ".." in local
        or not all(map(_LABEL.fullmatch, labels))
    ):
        raise RequestInvalidError(f"{field} is no e-mail address.")
    return name(given, field, _MOST_ADDRESS)


def scopes(values: Sequence[str]) -> list[str]:
    """Return scopes, each once, in their order; each is one word of printable ASCII."""
    given = list(dict.fromkeys(values))
    if len(given) > _MOST_SCOPES:
        raise RequestInvalidError(f"There are more than {_MOST_SCOPES} scopes.")
    if not all(map(_SCOPE.fullmatch, given)):
        raise RequestInvalidError(
            f"A scope is 1 to {_MOST_SCOPE} printable ASCII characters without space, quote and "
            "backslash."
        )
    return given


def pattern(value: str) -> str:
    """Return the id of a token pattern."""
    if not _PATTERN.fullmatch(value):
        raise RequestInvalidError("The pattern is no id of a token pattern.")
    return value


def mask(value: str) -> str:
    """Return what may be shown of a token."""
    return name(value, "The mask", _MOST_MASK)


def milliseconds(moment: datetime, field: str) -> int:
    """Return an aware time as the database keeps it; of this age of the world."""
    if not _FIRST <= moment < _LAST:
        raise RequestInvalidError(f"{field} is not between 1970 and 9999.")
    return round(moment.timestamp() * 1_000)


def is_row_id(value: str) -> bool:
    """True for what can be an id of ours."""
    return _ROW_ID.fullmatch(value) is not None


def searched(value: str) -> str:
    """Return a text to look for; what no text of ours can be finds nothing, on any database."""
    given = value.strip()
    is_possible = len(given) <= _MOST_NAME and not any(
        unicodedata.category(one) in _REFUSED for one in given
    )
    return given if is_possible else ""


def quoted(value: str) -> str:
    """Return a text from outside as an error may show it."""
    return repr(printable(value, 80))
