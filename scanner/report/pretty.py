"""For people: what a file holds, under its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from scanner.matcher.pattern import Ruleset
from scanner.model import Checksum, Validity
from scanner.report.finding import Finding, Summary
from scanner.text import printable

_PLACE = 9  # characters for line:column; more shift the rest
_MOST_NAME = 28  # of a pattern's id, likewise: a line then fits into 80
_COLOURS = {Validity.ACTIVE: "red", Validity.UNCHECKED: None, Validity.STORE_UNAVAILABLE: "yellow"}
_UNITS = ("bytes", "kB", "MB", "GB")


class Pretty:
    """Satisfies `Report`."""

    def __init__(self, ruleset: Ruleset) -> None:
        names = [len(pattern.id) for pattern in ruleset.patterns]
        self._width = min(_MOST_NAME, max(names, default=0))
        self._place = ""

    def findings(self, findings: Sequence[Finding]) -> None:
        """A line each, under one for the file (and commit) they are in."""
        for finding in findings:
            place = printable(finding.path or f"({finding.kind} {(finding.blob or '')[:12]})")
            if finding.commit:
                place += f"  in {finding.commit[:12]}"
            if place != self._place:
                self._place = place
                click.secho(place, bold=True)
            click.echo("  ".join(self._parts(finding)))

    def _parts(self, finding: Finding) -> Iterator[str]:
        yield f"{finding.line}:{finding.column}".rjust(_PLACE)
        yield finding.pattern.ljust(self._width)
        yield finding.secret
        if finding.encoding != "plain":
            yield f"({finding.encoding})"
        if finding.checksum is Checksum.INVALID:
            yield "(wrong checksum)"
        colour = _COLOURS.get(finding.validity, "green")
        yield click.style(finding.validity.value, fg=colour) if colour else finding.validity.value

    def end(self, summary: Summary) -> None:
        """What was read, and why it is not all, if so."""
        found = click.style(_count(summary.findings, "finding"), bold=True)
        click.echo(
            f"{found} in {_count(summary.blobs, 'file')}, {_size(summary.bytes)}, "
            f"{summary.seconds:.2f} s."
        )
        if summary.known:
            click.echo(f"{summary.known} known in the baseline.")
        if summary.allowed:
            click.echo(
                f"{summary.allowed} allowed by a comment; --no-allow-comments reports them, too."
            )
        for reason in summary.partial:
            click.echo(f"{click.style('not complete:', fg='yellow')} {printable(reason)}")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _size(count: int) -> str:
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1_000
        unit += 1
    return f"{value:.3g} {_UNITS[unit]}" if unit else f"{count} {_UNITS[0]}"
