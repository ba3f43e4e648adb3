"""A finding and a summary as they may be shown, and what every format does with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from scanner.model import Checksum, Validity


@dataclass(frozen=True, slots=True)
class Finding:
    """A token and a place, as they are shown: masked, unless the user asked for more. Line and
    column count from 1, columns in bytes; `start` and `end` are byte offsets in the object."""

    pattern: str
    issuer: str
    path: str | None
    commit: str | None
    blob: str | None
    kind: str
    line: int
    column: int
    start: int
    end: int
    secret: str
    fingerprint: str
    checksum: Checksum
    encoding: str
    validity: Validity


@dataclass(slots=True)
class Summary:
    """What a scan came to. `known` were in the baseline, `allowed` by a comment: neither is among
    the `findings`. `partial`: why it is not complete, as it may be shown."""

    blobs: int = 0
    bytes: int = 0
    scanned_bytes: int = 0
    seconds: float = 0.0
    findings: int = 0
    known: int = 0
    allowed: int = 0
    partial: list[str] = field(default_factory=list)
    exit_code: int = 0
    began: datetime = field(default_factory=lambda: datetime.now(UTC))


class Report(Protocol):
    """A format."""

    def findings(self, findings: Sequence[Finding]) -> None:
        """Write what was found, as it comes."""
        ...

    def end(self, summary: Summary) -> None:
        """Write the end."""
        ...
