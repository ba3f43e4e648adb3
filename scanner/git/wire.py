"""How a process and its parsing child speak: length-prefixed JSON, secrets in base64.

The child reads hostile bytes, so what it answers is believed only as far as it can be checked: a
candidate must match its pattern, and its issuer, mask and checksum are worked out here again.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from scanner.matcher.checksums import CHECKSUMS
from scanner.matcher.mask import mask
from scanner.matcher.pattern import ChecksumMode, Pattern, Ruleset
from scanner.model import (
    Candidate,
    Checksum,
    Inspection,
    LocatedCandidate,
    ObjectKind,
    Place,
    Secret,
)

_MOST_BYTES = 256 << 20
_MOST_FOUND = 20_000
MOST_LARGE = 1 << 15  # files of a pack that may be known; as many as its bounds let in
_MOST_PATH = 8_192  # characters
_MOST_COUNT = 1 << 53
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
_OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REASON = re.compile(r"[a-z-]{1,40}: [0-9]{1,19}")
_ENCODING = re.compile(r"[a-z0-9-]{1,20}")
_COUNTS = ("objects", "blobs", "bytes", "scanned_bytes", "known_blobs")


def send(channel: socket.socket, message: Any, descriptors: Sequence[int] = ()) -> None:
    """Send one message, with file descriptors if there are any."""
    body = json.dumps(message).encode()
    head = len(body).to_bytes(8, "big")
    if descriptors:
        socket.send_fds(channel, [head], list(descriptors))
    else:
        channel.sendall(head)
    channel.sendall(body)


def receive(channel: socket.socket, seconds: float | None = None) -> tuple[Any, list[int]]:
    """Receive one message and its descriptors, within `seconds` in all, however slowly it drips.

    Errors: `EOFError` when the other side is gone, `TimeoutError`, `ValueError` for nonsense.
    """
    until = None if seconds is None else time.monotonic() + seconds
    _limit(channel, until)
    head, descriptors, _, _ = socket.recv_fds(channel, 8, 1)
    if not head:
        raise EOFError
    head += _read(channel, 8 - len(head), until)
    size = int.from_bytes(head, "big")
    if size > _MOST_BYTES:
        raise ValueError("the message is too long")
    return json.loads(_read(channel, size, until)), list(descriptors)


def dump_ruleset(ruleset: Ruleset) -> list[dict[str, Any]]:
    """Return a ruleset as JSON values."""
    return [asdict(pattern) for pattern in ruleset.patterns]


def load_ruleset(values: Sequence[Mapping[str, Any]]) -> Ruleset:
    """Return the ruleset that `dump_ruleset` took apart."""
    return Ruleset(
        tuple(
            Pattern(
                **{
                    **value,
                    "checksum_mode": ChecksumMode(value["checksum_mode"]),
                    "placeholders": tuple(value["placeholders"]),
                }
            )
            for value in values
        )
    )


def dump_inspection(inspection: Inspection) -> dict[str, Any]:
    """Return an inspection as JSON values."""
    return {
        **{name: getattr(inspection, name) for name in _COUNTS},
        "partial": inspection.partial,
        "bare": inspection.bare,
        "found": [
            [*dump_candidate(found.candidate), *_dump_place(found.place)]
            for found in inspection.found
        ],
    }


def load_ids(value: Any, most: int = MOST_LARGE) -> tuple[str, ...]:
    """Return object ids of large files, all different. Errors: `ValueError`."""
    if not isinstance(value, list) or len(value) > most:
        raise ValueError("not a list of object ids")
    ids = tuple(_text(object_id, _OBJECT_ID) for object_id in value)
    if len(set(ids)) != len(ids):
        raise ValueError("not a set of object ids")
    return ids


class InspectionLoader:
    """Rebuilds inspections that a child answered. Errors: `ValueError` for anything out of order;
    its text holds nothing that the child sent."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._patterns = {pattern.id: pattern for pattern in ruleset.patterns}
        self._expressions: dict[str, re.Pattern[bytes]] = {}  # of what was ever found

    def load(self, value: Any, most_objects: int = _MOST_COUNT) -> Inspection:
        """Return the inspection that `dump_inspection` took apart, of so many objects at most."""
        if not isinstance(value, dict):
            raise ValueError("not an inspection")  # noqa: TRY004 (one error for all nonsense)
        found, partial = value.get("found"), value.get("partial")
        if not isinstance(found, list) or len(found) > _MOST_FOUND:
            raise ValueError("not a list of candidates")
        if not isinstance(partial, list) or len(partial) > 32:
            raise ValueError("not a list of reasons")
        counts = {name: _count(value.get(name)) for name in _COUNTS}
        located = tuple(self._located(row) for row in found)
        bare = load_ids(value.get("bare"))
        objects, blobs = counts["objects"], counts["blobs"]
        if not len(bare) + counts["known_blobs"] <= blobs <= objects <= most_objects:
            raise ValueError("not that many objects")
        if not {one.place.object_id for one in located}.isdisjoint(bare):
            raise ValueError("a file with candidates is not bare")
        return Inspection(
            found=located,
            partial=tuple(_text(reason, _REASON) for reason in partial),
            bare=bare,
            **counts,
        )

    def _located(self, row: Any) -> LocatedCandidate:
        if not isinstance(row, list) or len(row) != 12:
            raise ValueError("not a candidate")
        return LocatedCandidate(self.candidate(*row[:5]), _place(*row[5:]))

    def candidate(
        self, pattern_id: Any, start: Any, end: Any, encoding: Any, secret: Any
    ) -> Candidate:
        """Return the candidate that `dump_candidate` took apart."""
        if not isinstance(pattern_id, str) or pattern_id not in self._patterns:
            raise ValueError("not a pattern")
        pattern = self._patterns[pattern_id]
        expression = self._expressions.get(pattern_id)
        if expression is None:
            expression = re.compile(pattern.regex.encode())
            self._expressions[pattern_id] = expression
        if not isinstance(secret, str):
            raise ValueError("not a secret")  # noqa: TRY004
        value = base64.b64decode(secret, validate=True)
        if expression.fullmatch(value) is None or len(value) > pattern.max_width:
            raise ValueError("not a token of its pattern")
        start, end = _count(start), _count(end)
        if end <= start:
            raise ValueError("not a span")
        return Candidate(
            pattern=pattern.id,
            issuer=pattern.issuer,
            start=start,
            end=end,
            secret=Secret(value),
            checksum=_checksum(pattern, value),
            mask=mask(pattern, value),
            encoding=_text(encoding, _ENCODING),
        )


def dump_candidate(candidate: Candidate) -> tuple[Any, ...]:
    """Return a candidate as five JSON values, its secret among them."""
    secret = base64.b64encode(candidate.secret.reveal()).decode()
    return candidate.pattern, candidate.start, candidate.end, candidate.encoding, secret


def _dump_place(place: Place) -> tuple[Any, ...]:
    moment = None if place.committed_at is None else round(place.committed_at.timestamp())
    return (
        *(place.object_id, place.kind, place.path, place.commit, moment),
        *(place.line, place.column),
    )


def _place(
    object_id: Any, kind: Any, path: Any, commit: Any, moment: Any, line: Any, column: Any
) -> Place:
    if path is not None and (not isinstance(path, str) or len(path) > _MOST_PATH or "\0" in path):
        raise ValueError("not a path")
    if path is not None:
        path.encode("utf-8", "surrogateescape")  # a lone surrogate of another kind is a ValueError
    at = None if moment is None else datetime.fromtimestamp(min(_count(moment), _LAST_SECOND), UTC)
    return Place(
        object_id=_text(object_id, _OBJECT_ID),
        kind=ObjectKind(kind),
        path=path,
        commit=None if commit is None else _text(commit, _OBJECT_ID),
        committed_at=at,
        line=max(1, _count(line)),
        column=max(1, _count(column)),
    )


def _checksum(pattern: Pattern, value: bytes) -> Checksum:
    if pattern.checksum is None:
        return Checksum.ABSENT
    right = CHECKSUMS[pattern.checksum].verify(value)
    return Checksum.VALID if right else Checksum.INVALID


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_COUNT:
        raise ValueError("not a count")
    return value


def _text(value: Any, form: re.Pattern[str]) -> str:
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise ValueError("not a text of the right form")
    return value


def _read(channel: socket.socket, size: int, until: float | None) -> bytes:
    body = bytearray()
    while len(body) < size:
        _limit(channel, until)
        piece = channel.recv(min(1 << 20, size - len(body)))
        if not piece:
            raise EOFError
        body += piece
    return bytes(body)


def _limit(channel: socket.socket, until: float | None) -> None:
    if until is None:
        return
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    channel.settimeout(left)
