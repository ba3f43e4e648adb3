"""patrol patterns."""

from __future__ import annotations

from pathlib import Path

import click

from scanner.commands.common import format_option, show
from scanner.errors import FinalError
from scanner.matcher.pattern import Pattern, Ruleset
from scanner.patterns.generate import issuable
from scanner.patterns.importing.files import import_rules, write_patterns
from scanner.patterns.loader import check_built_in, load, try_examples
from scanner.settings import load_settings


@click.group()
def patterns() -> None:
    """Token patterns."""


@patterns.command("list")
@format_option
def list_(style: str) -> None:
    """List the patterns in force."""
    rows = [
        {
            "id": p.id,
            "issuer": p.issuer,
            "name": p.name,
            "checksum": p.checksum,
            "mode": p.checksum_mode.value if p.checksum else None,
            "width": _width(p),
            "own": p.own,
            "issuable": issuable(p),
            "regex": p.regex,
            "bounds": p.bounds,
            "min_width": p.min_width,
            "max_width": p.max_width,
            "generate": p.generate,
            "reference": p.reference,
        }
        for p in load(load_settings().own_patterns).patterns
    ]
    show(rows, style, ("id", "issuer", "name", "checksum", "mode", "width"))


def _width(pattern: Pattern) -> str:
    if pattern.min_width == pattern.max_width:
        return str(pattern.max_width)
    return f"{pattern.min_width}-{pattern.max_width}"


@patterns.command()
@click.argument("file", required=False, type=click.Path(exists=True, path_type=Path))
def test(file: Path | None) -> None:
    """Check that generated tokens match and near-misses do not.

    FILE: a file or folder of patterns, which alone is tested; else all patterns in force.
    """
    if file is None:
        check_built_in()
    ruleset = load([file] if file else load_settings().own_patterns)
    others = frozenset(p.id for p in load().patterns) if file else frozenset()
    tested = [p for p in ruleset.patterns if p.id not in others]
    results = list(try_examples(Ruleset(tuple(tested))))
    rows = [
        {
            "id": result.pattern.id,
            "tried": result.tried,
            "result": "; ".join(result.problems) or ("right" if result.tried else "not tried"),
        }
        for result in results
    ]
    show(rows, "table", ("id", "tried", "result"))
    wrong = [result.pattern.id for result in results if result.problems]
    if wrong:
        raise FinalError(f"{len(wrong)} of {len(results)} patterns are wrong: {', '.join(wrong)}.")
    untried = sum(not result.tried for result in results)
    rest = f"; {untried} without `generate` were only read" if untried else ""
    click.echo(f"{len(results) - untried} patterns are right{rest}.")


@patterns.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="where to write; else to stdout")
def import_(files: tuple[Path, ...], output: Path | None) -> None:
    """Translate rule FILES of Betterleaks, gitleaks, Kingfisher or Nosey Parker into patterns.

    What cannot be expressed is named, rule by rule, on standard error and in the result. A rule's
    own examples are run; they are not written.
    """
    imported = import_rules(files)
    text = write_patterns(imported)
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise FinalError(f"{output} cannot be written ({error.strerror}).") from None
    for line in imported.report():
        click.echo(line, err=True)
    click.echo(f"{imported.count} of {len(imported.rules)} rules were imported.", err=True)
    if not imported.count:
        raise FinalError("None of the rules can be expressed.")
