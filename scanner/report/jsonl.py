"""For programs: one JSON object a finding, and the summary last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import click

from scanner.report.finding import Finding, Summary


class JsonLines:
    """Satisfies `Report`."""

    def findings(self, findings: Sequence[Finding]) -> None:
        """One line each."""
        for finding in findings:
            click.echo(json.dumps(asdict(finding)))

    def end(self, summary: Summary) -> None:
        """The last line."""
        shown = asdict(summary)
        del shown["exit_code"], shown["began"]
        click.echo(json.dumps({"summary": shown | {"seconds": round(summary.seconds, 3)}}))
