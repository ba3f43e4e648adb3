"""What `patrol scan` does: read, leave out what is accepted, show the rest."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from scanner.commands.scan import Options
from scanner.errors import ConfigurationError
from scanner.fingerprint import fingerprint
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Ruleset
from scanner.model import Inspection, LocatedCandidate, Validity
from scanner.patterns.bound import bound_patterns
from scanner.patterns.loader import load
from scanner.readers.crew import Crew
from scanner.report.baseline import Baseline, new_baseline, read_baseline
from scanner.report.finding import Finding, Report, Summary
from scanner.report.jsonl import JsonLines
from scanner.report.pretty import Pretty
from scanner.report.sarif import Repository, Sarif
from scanner.settings import Settings, load_settings
from scanner.sources.walk import list_files
from scanner.text import printable

if TYPE_CHECKING:
    from scanner.report.progress import Bar

_Validities = Callable[[Sequence[LocatedCandidate]], Sequence[Validity]]
_NO_INPUT = "Standard input is closed; give it something to read: … | patrol scan stdin"


def run(options: Options, crew: Crew | None) -> int:
    """Scan as asked for; returns the exit code. `crew` reads for all kinds but git."""
    settings = load_settings()
    only = options.only
    chosen = None if only is None else [name.strip() for name in only.split(",") if name.strip()]
    baseline = read_baseline(options.baseline) if options.baseline else None
    return _Scan(options, settings, load(settings.own_patterns, chosen), baseline).run(crew)


class _Scan:
    def __init__(
        self, options: Options, settings: Settings, ruleset: Ruleset, baseline: Baseline | None
    ) -> None:
        self._options = options
        self._settings = settings
        self._ruleset = ruleset
        # What was chosen may be less than what the store answers for.
        whole = ruleset if options.only is None else load(settings.own_patterns)
        self._bound = bound_patterns(whole, settings.store_patterns)
        self._accepted = _Accepted(baseline, options)
        self._key = settings.fingerprint_ring[0]  # refused, if so, before anything is printed
        self._summary = Summary()

    def run(self, crew: Crew | None) -> int:
        validities = self._validities()
        bar = _bar()
        began = time.monotonic()
        summary = self._summary
        inspections = self._inspections(crew)  # what cannot be scanned is said before any output
        report = self._report()
        try:
            for name, inspection in inspections:
                summary.blobs += inspection.blobs
                summary.bytes += inspection.bytes
                summary.scanned_bytes += inspection.scanned_bytes
                summary.partial += [self._shown(reason) for reason in inspection.partial]
                found = self._accepted.filter(inspection.found, validities(inspection.found))
                summary.findings += len(found)
                if bar is not None:
                    bar.add(inspection.blobs, inspection.bytes)
                    if found:
                        bar.hide()
                    elif bar.is_due:
                        bar.show(printable(self._shown(name)), summary.findings)
                if found:
                    report.findings([self._finding(*one) for one in found])
        finally:
            if bar is not None:
                bar.close()
        summary.seconds = time.monotonic() - began
        summary.known, summary.allowed = self._accepted.known, self._accepted.allowed
        self._accepted.write()
        if summary.findings:
            summary.exit_code = self._options.exit_code
        elif summary.partial:  # what could be read holds nothing: not the same as clean
            summary.exit_code = 2
        report.end(summary)
        return summary.exit_code

    def _inspections(self, crew: Crew | None) -> Iterator[tuple[str, Inspection]]:
        options = self._options
        if crew is None:
            (target,) = options.targets
            read = _git().scan_repository
            return iter([(str(target), read(target, self._matcher, options.since))])
        targets = () if options.kind == "stdin" else options.targets
        batches = list_files(targets, gitignore=options.gitignore)
        crew.begin(self._ruleset, self._bound, self._settings.data_dir / "cache", targets)
        if options.kind == "stdin":
            if sys.stdin is None:
                raise ConfigurationError(_NO_INPUT)
            return iter([("-", crew.read_stream(sys.stdin.buffer))])
        return ((batch.paths[-1] if batch.paths else "", one) for batch, one in crew.read(batches))

    def _report(self) -> Report:
        if self._options.style == "jsonl":
            return JsonLines()
        if self._options.style == "pretty":
            return Pretty(self._ruleset)
        (target, *_) = self._options.targets
        is_git = self._options.kind == "git"
        return Sarif(self._ruleset, Repository(target, _git().head_of(target)) if is_git else None)

    def _validities(self) -> _Validities:
        if not self._options.verify:
            return lambda found: [Validity.UNCHECKED] * len(found)
        # Loaded only now: a scan without it starts without the weight of a database.
        verifier = importlib.import_module("scanner.commands.scan_verify").verifier
        ask: _Validities = verifier(self._settings, self._bound)
        return ask

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher(self._ruleset, self._settings.data_dir / "cache", self._bound)

    def _finding(self, found: LocatedCandidate, validity: Validity) -> Finding:
        candidate, place = found.candidate, found.place
        secret = candidate.mask
        if self._options.show_secrets:
            secret = candidate.secret.reveal().decode("ascii", "replace")
        return Finding(
            pattern=candidate.pattern,
            issuer=candidate.issuer,
            path=None if place.path is None else self._shown(place.path),
            commit=place.commit,
            blob=place.object_id or None,
            kind=place.kind.value,
            line=place.line,
            column=place.column,
            start=candidate.start,
            end=candidate.end,
            secret=secret,
            fingerprint=fingerprint(self._key, candidate.pattern, candidate.secret),
            checksum=candidate.checksum,
            encoding=candidate.encoding,
            validity=validity,
        )

    def _shown(self, path: str) -> str:
        """A path may hold a token itself; it may be any bytes."""
        shown = path if self._options.show_secrets else self._matcher.redact(path)
        return shown.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class _Accepted:
    """What is left out, and counted: known in the baseline, or allowed by a comment. A token that
    the store says is active never is: nobody can accept that for its owner."""

    def __init__(self, baseline: Baseline | None, options: Options) -> None:
        self._baseline = baseline
        self._heeds_comments = options.allow_comments
        self._path = options.write_baseline
        salted = new_baseline() if baseline is None else baseline
        self._written = salted.empty() if self._path else None
        self.known = self.allowed = 0

    def filter(
        self, found: Sequence[LocatedCandidate], validities: Sequence[Validity]
    ) -> list[tuple[LocatedCandidate, Validity]]:
        """Return what is to be reported."""
        return [
            (one, validity)
            for one, validity in zip(found, validities, strict=True)
            if validity is Validity.ACTIVE or not self._is_accepted(one)
        ]

    def write(self) -> None:
        """Write the baseline, if one was asked for."""
        if self._written is not None and self._path is not None:
            self._written.write(self._path)

    def _is_accepted(self, found: LocatedCandidate) -> bool:
        if found.allowed and self._heeds_comments:
            self.allowed += 1
            return True
        if self._written is not None:
            self._written.add(found.candidate)
        elif self._baseline is None or found.candidate not in self._baseline:
            return False
        self.known += 1
        return True


def _git() -> Any:
    # Loaded only now: most scans are of folders.
    return importlib.import_module("scanner.git.local")


def _bar() -> Bar | None:
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    # Loaded only now: where nobody looks, nothing is drawn.
    bar: Bar = importlib.import_module("scanner.report.progress").Bar()
    return bar
