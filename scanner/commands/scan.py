"""patrol scan: find tokens in a folder, a local git repository or standard input."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from scanner.bootstrap import Services
from scanner.commands.common import services
from scanner.fingerprint import fingerprint
from scanner.git.local import scan_repository
from scanner.matcher.engine import Matcher
from scanner.model import Inspection, LocatedCandidate, Validity
from scanner.patterns.loader import load
from scanner.prove import prove
from scanner.sources.files import scan_folder, scan_stream
from scanner.text import printable

_COUNTS = ("blobs", "bytes", "scanned_bytes")


@click.command()
@click.argument("kind", type=click.Choice(["dir", "git", "stdin"]))
@click.argument("target", default=".", type=click.Path(path_type=Path))
@click.option("--format", "style", type=click.Choice(["pretty", "jsonl"]), default="pretty")
@click.option("--patterns", "only", help="pattern ids, comma between them")
@click.option("--since", help="git: only what this commit does not have")
@click.option("--show-secrets", is_flag=True, help="print what was found in full")
@click.option("--verify", is_flag=True, help="ask the token store about its own patterns")
@click.option(
    "--exit-code",
    type=click.IntRange(0, 255),
    default=1,
    show_default=True,
    help="when something was found",
)
def scan(
    kind: str,
    target: Path,
    style: str,
    only: str | None,
    since: str | None,
    exit_code: int,
    *,
    show_secrets: bool,
    verify: bool,
) -> None:
    """Find tokens in KIND (dir, git, stdin) at TARGET.

    Nothing is revoked and nobody is told. Exit code 0: nothing found; 1 (or --exit-code): something
    was; 2: the scan could not be done.
    """
    if since is not None and kind != "git":
        raise click.UsageError("--since goes with: patrol scan git")
    built = services()
    chosen = None if only is None else [name.strip() for name in only.split(",") if name.strip()]
    ruleset = load(built.settings.own_patterns, chosen)
    matcher = Matcher(ruleset, bound=built.bound)
    show = _Printer(built, matcher, style, show_secrets=show_secrets)
    began = time.monotonic()
    totals: Counter[str] = Counter()
    partial: list[str] = []
    for inspection in _inspections(kind, target, matcher, since):
        totals.update({name: getattr(inspection, name) for name in _COUNTS})
        totals["findings"] += len(inspection.found)
        partial += inspection.partial
        validities = _validities(built, inspection.found) if verify else None
        for index, found in enumerate(inspection.found):
            show.finding(found, validities[index] if validities else Validity.UNCHECKED)
    show.summary(totals, time.monotonic() - began, partial)
    if totals["findings"]:
        raise click.exceptions.Exit(exit_code)
    if partial:  # what could be read holds nothing: not the same as clean
        raise click.exceptions.Exit(2)


def _inspections(
    kind: str, target: Path, matcher: Matcher, since: str | None
) -> Iterable[Inspection]:
    if kind == "dir":
        return scan_folder(target, matcher)
    if kind == "git":
        return [scan_repository(target, matcher, since)]
    return [scan_stream(sys.stdin.buffer, matcher)]


def _validities(built: Services, found: Sequence[LocatedCandidate]) -> list[Validity]:
    secrets = {f.candidate.secret for f in found if f.candidate.pattern in built.bound}
    asked = list(secrets)
    answers = dict(zip(asked, prove(built.store, asked), strict=True)) if asked else {}
    return [
        answers[f.candidate.secret].validity
        if f.candidate.pattern in built.bound
        else Validity.UNCHECKED
        for f in found
    ]


class _Printer:
    """Writes findings as they come: for people, or one JSON object a line."""

    def __init__(
        self, built: Services, matcher: Matcher, style: str, *, show_secrets: bool
    ) -> None:
        self._key = built.settings.fingerprint_ring[0]
        self._matcher = matcher
        self._style = style
        self._show_secrets = show_secrets

    def finding(self, found: LocatedCandidate, validity: Validity) -> None:
        candidate, place = found.candidate, found.place
        secret = candidate.mask
        if self._show_secrets:
            secret = candidate.secret.reveal().decode("ascii", "replace")
        path = self._path(place.path)
        if self._style == "pretty":
            where = path or f"({place.kind.value} {place.object_id[:12]})"
            shown = printable(f"{where}:{place.line}:{place.column}")
            commit = f"  {place.commit[:12]}" if place.commit else ""
            click.echo(f"{shown}{commit}  {candidate.pattern}  {secret}  {validity.value}")
            return
        self._json(
            {
                "pattern": candidate.pattern,
                "issuer": candidate.issuer,
                "path": path,
                "commit": place.commit,
                "blob": place.object_id or None,
                "kind": place.kind.value,
                "line": place.line,
                "column": place.column,
                "start": candidate.start,
                "end": candidate.end,
                "secret": secret,
                "fingerprint": fingerprint(self._key, candidate.pattern, candidate.secret),
                "checksum": candidate.checksum.value,
                "encoding": candidate.encoding,
                "validity": validity.value,
            }
        )

    def summary(self, totals: Counter[str], seconds: float, partial: Sequence[str]) -> None:
        if self._style == "jsonl":
            counts = {name: totals[name] for name in (*_COUNTS, "findings")}
            took = {"seconds": round(seconds, 3), "partial": [self._path(one) for one in partial]}
            self._json({"summary": counts | took})
            return
        findings, blobs = totals["findings"], totals["blobs"]
        click.echo(
            f"{findings} finding{'s' * (findings != 1)} in {blobs} file{'s' * (blobs != 1)}, "
            f"{totals['bytes']} bytes, {seconds:.2f} s."
        )
        for reason in partial:
            click.echo(f"not complete: {printable(self._path(reason) or '')}")

    def _path(self, path: str | None) -> str | None:
        """A path may hold a token itself; it may be any bytes."""
        if path is None:
            return None
        shown = path if self._show_secrets else self._matcher.redact(path)
        return shown.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    @staticmethod
    def _json(value: object) -> None:
        click.echo(json.dumps(value))
