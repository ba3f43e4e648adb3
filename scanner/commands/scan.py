"""patrol scan: find tokens in folders and files, a local git repository or standard input.

This file is the command's face; scan_run.py does it. What must load for that is more than a small
scan takes, so the process that reads files starts before.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path

import click

from scanner.readers.crew import Crew


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    kind: str
    targets: tuple[Path, ...]
    style: str
    only: str | None
    since: str | None
    baseline: Path | None
    write_baseline: Path | None
    exit_code: int
    show_secrets: bool
    verify: bool
    gitignore: bool
    allow_comments: bool


@click.command()
@click.argument("kind", type=click.Choice(["dir", "git", "stdin"]))
@click.argument("targets", nargs=-1, type=click.Path(path_type=Path), metavar="[TARGET]...")
@click.option(
    "--format",
    "style",
    type=click.Choice(["pretty", "jsonl", "sarif"]),
    default="pretty",
    show_default=True,
)
@click.option("--patterns", "only", help="pattern ids, comma between them")
@click.option("--since", help="git: only what this commit does not have")
@click.option(
    "--gitignore/--no-gitignore",
    default=False,
    show_default=True,
    help="dir: leave out what git ignores; a secret in there is one all the same",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="report only what is not known from this file",
)
@click.option(
    "--write-baseline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="know all that is found from now on: hashes, no token",
)
@click.option(
    "--allow-comments/--no-allow-comments",
    default=True,
    show_default=True,
    help="leave out what a comment (patrol:allow …) allows",
)
@click.option("--show-secrets", is_flag=True, help="print what was found in full")
@click.option("--verify", is_flag=True, help="ask the token store about its own patterns")
@click.option(
    "--exit-code",
    type=click.IntRange(0, 255),
    default=1,
    show_default=True,
    help="when something was found",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    help="dir: processes that read; by default as many as processors",
)
def scan(
    kind: str,
    targets: tuple[Path, ...],
    style: str,
    only: str | None,
    since: str | None,
    baseline: Path | None,
    write_baseline: Path | None,
    exit_code: int,
    jobs: int | None,
    *,
    show_secrets: bool,
    verify: bool,
    gitignore: bool,
    allow_comments: bool,
) -> None:
    """Find tokens in KIND (dir, git, stdin) at TARGET: by default, here.

    dir takes several folders and files. Nothing is revoked and nobody is told. A token that the
    store says is active (--verify) is reported whatever comment or baseline it has.

    Exit code 0: nothing found; 1 (or --exit-code): something was; 2: the scan could not be done,
    or not completely.
    """
    for is_given, option, only_for in (
        (since is not None, "--since", "git"),
        (gitignore, "--gitignore", "dir"),
        (jobs is not None, "--jobs", "dir"),
    ):
        if is_given and kind != only_for:
            raise click.UsageError(f"{option} goes with: patrol scan {only_for}")
    if kind == "git" and len(targets) > 1:
        raise click.UsageError("patrol scan git takes one repository")
    if kind == "stdin" and targets:
        raise click.UsageError("patrol scan stdin reads standard input, and no TARGET")
    options = Options(
        kind, targets or (Path(),), style, only, since, baseline, write_baseline, exit_code,
        show_secrets, verify, gitignore, allow_comments,
    )  # fmt: skip
    crew = None if kind == "git" else Crew(jobs or len(os.sched_getaffinity(0)))
    try:
        run = importlib.import_module("scanner.commands.scan_run").run
        raise click.exceptions.Exit(run(options, crew))
    finally:
        if crew is not None:
            crew.close()
