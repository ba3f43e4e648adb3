"""Rows of a CSV file of digests: each is read, checked, and taken or rejected on its own.

A raw token has no business in such a file. One in the digest column, or in any other, is refused
without a word of it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from scanner.errors import FinalError, PatrolError, RequestInvalidError
from scanner.stores import rules
from scanner.stores.digests import SHA256, DigestRing

REQUIRED = ("digest", "name", "organisation")
COLUMNS = (
    *REQUIRED, "algorithm", "owner", "email", "pattern", "scopes", "mask", "valid_from", "valid_to",
    "external_id",
)  # fmt: skip
_HMAC = "hmac-sha256:"
_HIDDEN = "…"
_DIGEST_LENGTH = 64
_LONGEST_FIELD = 100_000


class RawTokenError(RequestInvalidError):
    """A token stands where a digest, or a name, should."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row that was taken. `start` is the chain of keys that `digest` (hex) has so far."""

    number: int
    start: str
    digest: str
    name: str
    organisation: str
    owner: str | None
    email: str | None
    pattern: str
    scopes: str  # JSON
    mask: str
    valid_from: int | None  # milliseconds; None: now
    valid_to: int | None
    external_id: str | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was not taken, and why; `shown` holds what may be shown of it."""

    number: int
    reason: str
    is_raw: bool
    shown: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows are judged. `patterns`: ids the store answers for; `default_pattern` where a row
    names none; `holds_token` says whether bytes hold something of a token's form."""

    ring: DigestRing
    patterns: frozenset[str]
    default_pattern: str | None
    holds_token: Callable[[bytes], bool]


def read_lines(path: Path, reading: Reading) -> Iterator[Line | Rejected]:
    """Yield every row of a file. Errors: `FinalError` when its head is not that of such a file."""
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        rows = csv.reader(file, strict=True)
        head = _head(rows)
        while True:
            number = rows.line_num + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield Rejected(number, f"it is no CSV ({error})", False, {})
                continue
            if not row:
                continue
            yield _judge(number, head, row, reading)


def _head(rows: Iterator[list[str]]) -> list[str]:
    try:
        head = [name.strip().lower() for name in next(rows, [])]
    except csv.Error:
        head = []
    missing = [name for name in REQUIRED if name not in head]
    if missing or len(set(head)) != len(head) or not set(head) <= set(COLUMNS):
        raise FinalError(
            f"The first line must name the columns: {', '.join(REQUIRED)}, and any of "
            f"{', '.join(COLUMNS[len(REQUIRED) :])}; each once, and no others."
        )
    return head


def _judge(
    number: int, head: Sequence[str], row: Sequence[str], reading: Reading
) -> Line | Rejected:
    cells = dict(zip(head, row, strict=False))
    try:
        if len(row) != len(head):
            raise RequestInvalidError(f"it has {len(row)} columns, not {len(head)}")
        return _line(number, cells, reading)
    except PatrolError as error:
        return Rejected(number, str(error), isinstance(error, RawTokenError), cells)


def _line(number: int, cells: dict[str, str], reading: Reading) -> Line:
    digest = cells.pop("digest").strip().lower()
    if len(digest) != _DIGEST_LENGTH or not _is_hex(digest):
        if reading.holds_token(digest.encode("utf-8", "surrogateescape")) or len(digest) > 20:
            raise RawTokenError(
                "the digest column holds something else, perhaps a token itself; give 64 hex digits"
            )
        raise RequestInvalidError("the digest is not 64 hex digits")
    if reading.holds_token("\n".join(cells.values()).encode("utf-8", "surrogateescape")):
        raise RawTokenError("a column holds a token itself")
    given = {name: value.strip() for name, value in cells.items()}
    begins, ends = _moment(given.get("valid_from", "")), _moment(given.get("valid_to", ""))
    if begins is not None and ends is not None and ends <= begins:
        raise RequestInvalidError("the token would end before it begins")
    owner, external_id = given.get("owner"), given.get("external_id")
    mask = given.get("mask")
    return Line(
        number,
        _start(given.get("algorithm", ""), reading.ring),
        digest,
        rules.name(given["name"], "the name"),
        rules.name(given["organisation"], "the organisation"),
        rules.name(owner, "the owner") if owner else None,
        rules.address(given.get("email"), "the email"),
        _pattern(given.get("pattern", ""), reading),
        _scopes(given.get("scopes", "")),
        rules.mask(mask) if mask else _HIDDEN,
        begins,
        ends,
        rules.name(external_id, "the external id") if external_id else None,
    )


def _is_hex(text: str) -> bool:
    try:
        return len(bytes.fromhex(text)) * 2 == len(text)
    except ValueError:
        return False


def _start(algorithm: str, ring: DigestRing) -> str:
    if algorithm in ("", SHA256):
        return SHA256
    key_id = algorithm.removeprefix(_HMAC)
    if not algorithm.startswith(_HMAC) or key_id not in ring.starts:
        raise RequestInvalidError(
            f"the algorithm is sha256, or {_HMAC}ID with a key of PATROL_ISSUER_KEYS"
        )
    return key_id


def _pattern(given: str, reading: Reading) -> str:
    pattern = given or reading.default_pattern
    if pattern is None:
        raise RequestInvalidError("it names no pattern, and there is no default one")
    if pattern not in reading.patterns:
        raise RequestInvalidError("the store does not answer for its pattern")
    return pattern


@lru_cache(maxsize=4_096)
def _scopes(text: str) -> str:
    return json.dumps(rules.scopes(text.split()))


@lru_cache(maxsize=65_536)
def _moment(text: str) -> int | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return rules.milliseconds(moment, "a time")
    except ValueError:
        raise RequestInvalidError("a time is not as 2027-01-31 or 2027-01-31T12:00:00Z") from None
