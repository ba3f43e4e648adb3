"""How a process and its parsing child speak: length-prefixed JSON, secrets in base64."""

from __future__ import annotations

import base64
import json
import socket
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from scanner.errors import InspectionError
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


def send(channel: socket.socket, message: Any, descriptors: list[int] | None = None) -> None:
    """Send one message, with file descriptors if there are any."""
    body = json.dumps(message).encode()
    head = len(body).to_bytes(8, "big")
    if descriptors:
        socket.send_fds(channel, [head], descriptors)
    else:
        channel.sendall(head)
    channel.sendall(body)


def receive(channel: socket.socket) -> tuple[Any, list[int]]:
    """Receive one message; raises `EOFError` when the other side is gone."""
    head, descriptors, _, _ = socket.recv_fds(channel, 8, 1)
    while len(head) < 8:
        more = channel.recv(8 - len(head))
        if not head or not more:
            raise EOFError
        head += more
    size = int.from_bytes(head, "big")
    if size > _MOST_BYTES:
        raise InspectionError("The parsing child answered too much.")
    body = bytearray()
    while len(body) < size:
        piece = channel.recv(min(1 << 20, size - len(body)))
        if not piece:
            raise EOFError
        body += piece
    return json.loads(body), descriptors


def dump_ruleset(ruleset: Ruleset) -> list[dict[str, Any]]:
    """Return a ruleset as JSON values."""
    return [asdict(pattern) for pattern in ruleset.patterns]


def load_ruleset(values: list[dict[str, Any]]) -> Ruleset:
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
        "objects": inspection.objects,
        "blobs": inspection.blobs,
        "bytes": inspection.bytes,
        "scanned_bytes": inspection.scanned_bytes,
        "partial": inspection.partial,
        "found": [
            [
                {
                    **{name: getattr(found.candidate, name) for name in _CANDIDATE},
                    "secret": base64.b64encode(found.candidate.secret.reveal()).decode(),
                },
                {
                    **{name: getattr(found.place, name) for name in _PLACE},
                    "committed_at": found.place.committed_at
                    and found.place.committed_at.timestamp(),
                },
            ]
            for found in inspection.found
        ],
    }


_CANDIDATE = ("pattern", "issuer", "start", "end", "checksum", "mask", "encoding")
_PLACE = ("object_id", "kind", "path", "commit", "line", "column")


def load_inspection(value: dict[str, Any], known: frozenset[str]) -> Inspection:
    """Rebuild an inspection; the child reads hostile bytes, so a foreign pattern id is refused."""
    found = []
    for candidate, place in value["found"]:
        if candidate["pattern"] not in known:
            raise InspectionError("The parsing child named an unknown pattern.")
        when = place["committed_at"]
        found.append(
            LocatedCandidate(
                Candidate(
                    pattern=candidate["pattern"],
                    issuer=str(candidate["issuer"]),
                    start=int(candidate["start"]),
                    end=int(candidate["end"]),
                    secret=Secret(base64.b64decode(candidate["secret"], validate=True)),
                    checksum=Checksum(candidate["checksum"]),
                    mask=str(candidate["mask"]),
                    encoding=str(candidate["encoding"]),
                ),
                Place(
                    object_id=str(place["object_id"]),
                    kind=ObjectKind(place["kind"]),
                    path=place["path"],
                    commit=place["commit"],
                    committed_at=None if when is None else datetime.fromtimestamp(when, UTC),
                    line=int(place["line"]),
                    column=int(place["column"]),
                ),
            )
        )
    return Inspection(
        tuple(found),
        int(value["objects"]),
        int(value["blobs"]),
        int(value["bytes"]),
        int(value["scanned_bytes"]),
        tuple(str(reason) for reason in value["partial"]),
    )
