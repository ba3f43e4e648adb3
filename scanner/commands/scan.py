"""patrol scan: find tokens in a folder, a local git repository or standard input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from scanner.commands.common import services
from scanner.db.incidents import fingerprint
from scanner.errors import ConfigurationError
from scanner.git.inspect import line_and_column
from scanner.matcher.engine import Matcher
from scanner.model import Candidate, Validity
from scanner.patterns.loader import load
from scanner.prove import prove
from scanner.settings import load_settings
from scanner.text import printable

_MOST_BYTES = 128 << 20  # a larger file is named as partial


@dataclass(frozen=True, slots=True)
class _Item:
    path: str
    blob: str | None
    data: bytes


def _from_dir(root: Path, partial: list[str]) -> Iterator[_Item]:
    """Every regular file below `root`; links are not followed, git's own folder is skipped."""
    if not root.exists():
        raise ConfigurationError(f"{root} does not exist.")
    for path in [root] if root.is_file() else _walk(root):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            if path.stat().st_size > _MOST_BYTES:
                partial.append(f"{path}: larger than {_MOST_BYTES} bytes")
                continue
            yield _Item(str(path), None, path.read_bytes())
        except OSError as error:
            partial.append(f"{path}: {error.strerror}")


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != ".git")
        yield from (Path(folder) / name for name in sorted(names))


def _from_git(root: Path, partial: list[str]) -> Iterator[_Item]:
    """Every blob any ref reaches, once, with one of its paths."""
    listed = subprocess.run(
        ["git", "-C", str(root), "rev-list", "--objects", "--all", "--filter=object:type=blob",
         "--filter-provided-objects"],
        capture_output=True,
        check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        raise ConfigurationError(f"{root} is not a git repository that can be read.")
    names = [line.partition(b" ")[::2] for line in listed.stdout.splitlines()]
    with subprocess.Popen(
        ["git", "-C", str(root), "cat-file", "--batch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as reader:
        assert reader.stdin is not None and reader.stdout is not None  # noqa: S101, PT018
        for object_id, path in names:
            reader.stdin.write(object_id + b"\n")
            reader.stdin.flush()
            head = reader.stdout.readline().split()
            if len(head) != 3:
                partial.append(f"{object_id.decode()}: missing")
                continue
            data = reader.stdout.read(int(head[2]))
            reader.stdout.read(1)
            yield _Item(path.decode("utf-8", "surrogateescape"), object_id.decode(), data)
        reader.stdin.close()


@click.command()
@click.argument("kind", type=click.Choice(["dir", "git", "stdin"]))
@click.argument("target", default=".", type=click.Path(path_type=Path))
@click.option("--format", "style", type=click.Choice(["pretty", "jsonl"]), default="pretty")
@click.option("--patterns", "only", help="pattern ids, comma between them")
@click.option("--show-secrets", is_flag=True, help="print what was found in full")
@click.option("--verify", is_flag=True, help="ask the token store about bound patterns")
def scan(
    kind: str, target: Path, style: str, only: str | None, *, show_secrets: bool, verify: bool
) -> None:
    """Find tokens in KIND (dir, git, stdin) at TARGET. Exit code 1 when there are any."""
    settings = load_settings()
    ruleset = load(settings.own_patterns, only.split(",") if only else None)
    matcher = Matcher(ruleset)
    partial: list[str] = []
    began = time.monotonic()
    if kind == "dir":
        items = _from_dir(target, partial)
    elif kind == "git":
        items = _from_git(target, partial)
    else:
        items = iter([_Item("-", None, sys.stdin.buffer.read())])
    count = blobs = size = 0
    for item in items:
        blobs, size = blobs + 1, size + len(item.data)
        found = matcher.scan(item.data)
        validities = _validities(found, verify=verify)
        for candidate, validity in zip(found, validities, strict=True):
            count += 1
            _print(item, candidate, validity, style, show_secrets=show_secrets)
    summary = {
        "blobs": blobs,
        "bytes": size,
        "scanned_bytes": size,
        "seconds": round(time.monotonic() - began, 3),
        "findings": count,
        "partial": partial,
    }
    if style == "jsonl":
        click.echo(json.dumps({"summary": summary}))
    else:
        click.echo(f"{count} findings in {blobs} files, {size} bytes, {summary['seconds']} s.")
        for reason in partial:
            click.echo(f"not read: {printable(reason)}")
    if count:
        raise click.exceptions.Exit(1)


def _validities(found: list[Candidate], *, verify: bool) -> list[Validity]:
    if not verify or not found:
        return [Validity.UNCHECKED] * len(found)
    built = services()
    asked = [c for c in found if c.pattern in built.bound]
    answers = iter(prove(built.store, [c.secret for c in asked]))
    return [
        next(answers).validity if c.pattern in built.bound else Validity.UNCHECKED for c in found
    ]


def _print(
    item: _Item, candidate: Candidate, validity: Validity, style: str, *, show_secrets: bool
) -> None:
    line, column = line_and_column(item.data, candidate.start)
    shown = candidate.secret.reveal().decode("ascii", "replace") if show_secrets else candidate.mask
    if style == "pretty":
        where = printable(f"{item.path}:{line}:{column}")
        click.echo(f"{where}  {candidate.pattern}  {shown}  {validity.value}")
        return
    key = load_settings().fingerprint_ring[0]
    click.echo(
        json.dumps(
            {
                "pattern": candidate.pattern,
                "issuer": candidate.issuer,
                "path": item.path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
                "commit": None,
                "blob": item.blob,
                "line": line,
                "column": column,
                "start": candidate.start,
                "end": candidate.end,
                "secret": shown,
                "fingerprint": fingerprint(key, candidate.pattern, candidate.secret),
                "checksum": candidate.checksum.value,
                "encoding": candidate.encoding,
                "validity": validity.value,
            }
        )
    )
