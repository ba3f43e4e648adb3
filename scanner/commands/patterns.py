"""patrol patterns."""

from __future__ import annotations

from pathlib import Path

import click

from scanner.commands.common import format_option, show
from scanner.errors import FinalError
from scanner.patterns.loader import check_examples, load
from scanner.settings import load_settings


@click.group()
def patterns() -> None:
    """Token patterns."""


@patterns.command("list")
@format_option
def list_(style: str) -> None:
    """List the patterns in force."""
    rows = [
        {"id": p.id, "issuer": p.issuer, "name": p.name, "checksum": p.checksum, "own": p.own}
        for p in load(load_settings().own_patterns).patterns
    ]
    show(rows, style, ("id", "name", "checksum"))


@patterns.command()
@click.argument("file", required=False, type=click.Path(exists=True, path_type=Path))
def test(file: Path | None) -> None:
    """Check that generated tokens match and near-misses do not."""
    ruleset = load([file] if file else load_settings().own_patterns)
    problems = check_examples(ruleset)
    if problems:
        raise FinalError("; ".join(problems))
    click.echo(f"{len(ruleset.patterns)} patterns are right.")
