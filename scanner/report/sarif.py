"""SARIF 2.1.0, as code-scanning pages take it. Source: the OASIS standard's text and schema.

The log is written as findings come: its order of keys is free, and a scan may find a million.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from scanner import __version__
from scanner.matcher.pattern import Pattern, Ruleset
from scanner.model import Checksum, ObjectKind, Validity
from scanner.report.finding import Finding, Summary
from scanner.text import printable

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_FINGERPRINT = "patrolFingerprint/v1"
_LEVELS = {
    Validity.ACTIVE: "error",
    Validity.UNCHECKED: "warning",
    Validity.STORE_UNAVAILABLE: "warning",
    Validity.INACTIVE: "note",
    Validity.REVOKED: "note",
    Validity.EXPIRED: "note",
    Validity.OWNER_DISABLED: "note",
    Validity.NEVER_ISSUED: "note",
}


@dataclass(frozen=True, slots=True)
class Repository:
    """The repository that was scanned, and the commit its HEAD was at, if there was one."""

    path: Path
    head: str | None


class Sarif:
    """Satisfies `Report`. `repository`: of `scan git`."""

    def __init__(self, ruleset: Ruleset, repository: Repository | None = None) -> None:
        self._repository = repository
        self._index = {pattern.id: index for index, pattern in enumerate(ruleset.patterns)}
        self._separator = ""
        driver = {
            "name": "Patrol",
            "version": __version__,
            "rules": [_rule(pattern) for pattern in ruleset.patterns],
        }
        head = json.dumps({"$schema": _SCHEMA, "version": "2.1.0"})
        tool = json.dumps({"tool": {"driver": driver}})
        click.echo(f'{head[:-1]}, "runs": [{tool[:-1]}, "results": [')

    def findings(self, findings: Sequence[Finding]) -> None:
        """A result each."""
        for finding in findings:
            click.echo(self._separator + json.dumps(self._result(finding)), nl=False)
            self._separator = ",\n"

    def end(self, summary: Summary) -> None:
        """What there is to say of the run; then the log is whole."""
        ended = datetime.now(UTC)
        rest: dict[str, Any] = {
            "invocations": [
                {
                    "executionSuccessful": not summary.partial,
                    "exitCode": summary.exit_code,
                    "startTimeUtc": _time(summary.began),
                    "endTimeUtc": _time(ended),
                    "toolExecutionNotifications": [
                        {"level": "warning", "message": {"text": f"Not complete: {reason}"}}
                        for reason in map(printable, summary.partial)
                    ],
                }
            ],
            # Columns are bytes: the same as characters wherever a line is ASCII up to the token.
            "columnKind": "unicodeCodePoints",
        }
        if self._repository is not None:
            origin = {"repositoryUri": self._repository.path.resolve().as_uri()}
            if self._repository.head:
                origin["revisionId"] = self._repository.head
            rest["versionControlProvenance"] = [origin]
        click.echo(f"\n], {json.dumps(rest)[1:-1]}}}]}}")

    def _result(self, finding: Finding) -> dict[str, Any]:
        return {
            "ruleId": finding.pattern,
            "ruleIndex": self._index[finding.pattern],
            "level": _level(finding),
            "message": {"text": f"{finding.pattern}: {finding.secret} ({finding.validity.value})"},
            "locations": [self._location(finding)],
            "partialFingerprints": {_FINGERPRINT: finding.fingerprint},
            "properties": {
                "validity": finding.validity.value,
                "checksum": finding.checksum.value,
                "encoding": finding.encoding,
                **({"commit": finding.commit} if finding.commit else {}),
                **({"blob": finding.blob} if finding.blob else {}),
            },
        }

    def _location(self, finding: Finding) -> dict[str, Any]:
        if finding.path is None or finding.kind != ObjectKind.BLOB.value:
            # In a commit's message or a tree's names there is no file to point to.
            name = f"{finding.kind} {finding.blob}"
            return {"logicalLocations": [{"fullyQualifiedName": name, "kind": "object"}]}
        return {
            "physicalLocation": {
                "artifactLocation": {"uri": _uri(finding.path)},
                "region": {
                    "startLine": finding.line,
                    "startColumn": finding.column,
                    "byteOffset": finding.start,
                    "byteLength": finding.end - finding.start,
                },
            }
        }


def _rule(pattern: Pattern) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "id": pattern.id,
        "name": "".join(word.capitalize() for word in pattern.id.split("-")),
        "shortDescription": {"text": pattern.name},
        "properties": {"tags": ["security", "secret", pattern.issuer]},
    }
    if pattern.reference:
        rule["helpUri"] = pattern.reference
    return rule


def _level(finding: Finding) -> str:
    if finding.validity is Validity.UNCHECKED and finding.checksum is Checksum.INVALID:
        return "note"
    return _LEVELS[finding.validity]


def _uri(path: str) -> str:
    """Return a relative reference, percent-encoded, or a file: URI for an absolute path."""
    quoted = quote(os.path.normpath(path).encode("utf-8", "surrogateescape"))
    return f"file://{quoted}" if quoted.startswith("/") else quoted


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
