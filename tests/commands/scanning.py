"""Reading what `patrol scan --format jsonl` printed."""

from __future__ import annotations

import json
from typing import Any

FIELDS = [
    "pattern", "issuer", "path", "commit", "blob", "kind", "line", "column", "start", "end",
    "secret", "fingerprint", "checksum", "encoding", "validity",
]  # fmt: skip
SUMMARY = {
    "blobs", "bytes", "scanned_bytes", "seconds", "findings", "known", "allowed", "partial",
}  # fmt: skip


def read(out: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The findings and the summary of jsonl output."""
    *findings, last = (json.loads(line) for line in out.splitlines())
    assert list(last) == ["summary"]
    assert set(last["summary"]) == SUMMARY
    for finding in findings:
        assert list(finding) == FIELDS
    return findings, last["summary"]


def scan(patrol, *arguments: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    done = patrol("scan", *arguments, "--format=jsonl")
    assert done.err == ""
    findings, summary = read(done.out)
    assert done.code == (1 if findings else 2 if summary["partial"] else 0)
    return findings, summary
