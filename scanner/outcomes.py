"""How a scan ended: what is logged and counted of it, once its transaction is through."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from scanner.correlation import correlated
from scanner.db.lanes import Lane
from scanner.judge import Judged
from scanner.metrics import (
    CANDIDATES,
    SCAN_SECONDS,
    SCANNED_BYTES,
    SCANNED_OBJECTS,
    SCANS,
    SEALED,
)
from scanner.model import Inspection, Validity

log = logging.getLogger("scanner.scan")


def count(row: Mapping[str, Any], outcome: str) -> None:
    """Count how an attempt at a scan (its row) ended."""
    SCANS.add(lane=Lane(row["priority"]).name.lower(), outcome=outcome)


def tell_parked(row: Mapping[str, Any]) -> None:
    """A scan waits for a person."""
    with correlated(row["id"]):
        log.error("scan %s is parked: %s", row["id"], row["error"])
    count(row, "parked")


def tell_done(
    row: Mapping[str, Any],
    repository: str,
    inspection: Inspection,
    judged: Judged,
    *,
    proved_at: int,
    worked: float,
) -> None:
    """A scan has its verdict, since `proved_at` (the database's milliseconds), after `worked`
    seconds of this attempt."""
    outcome = "partial" if inspection.partial else "done"
    seconds = (proved_at - row["received_at"]) / 1000
    log.info(
        "scan %s",
        outcome,
        extra={
            "repository": repository,
            "objects": inspection.objects,
            "known_blobs": inspection.known_blobs or None,
            "candidates": len(inspection.found),
            "waiting": len(judged.waiting),
            "partial": ", ".join(inspection.partial) or None,
            "seconds": round(seconds, 3),
        },
    )
    count(row, outcome)
    SCAN_SECONDS.note(seconds, stage="total")
    SCAN_SECONDS.note(seconds - worked, stage="wait")
    SCANNED_OBJECTS.add(inspection.objects)
    SCANNED_BYTES.add(inspection.scanned_bytes)
    for finding in judged.findings:
        _count_candidate(finding.found.candidate.pattern, finding.lookup.validity)
    for token in judged.waiting:
        for place in token.places:
            _count_candidate(place.candidate.pattern, Validity.STORE_UNAVAILABLE)
    SEALED.add(len(judged.waiting) + len(judged.unconfirmed), outcome="waiting")


def _count_candidate(pattern: str, validity: Validity) -> None:
    CANDIDATES.add(pattern=pattern, validity=validity.value)
