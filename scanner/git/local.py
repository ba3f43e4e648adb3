"""Scanning a repository on disk: every object, by way of the user's own git.

The repository may be a stranger's, so nothing that its configuration could start is ever started:
no hook, no filter, no text conversion, no pager, no network, no signature check.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, cast

from scanner.archives.bounds import REASONS, ArchiveBounds
from scanner.errors import ConfigurationError
from scanner.examine import examine
from scanner.git.inspect import Hit
from scanner.git.provenance import parse_commit
from scanner.matcher.position import Scans, Spot
from scanner.model import Inspection, LocatedCandidate, ObjectKind, Place

_MOST_OBJECT = 128 << 20  # bytes; larger objects are skipped, and said to be
_MOST_FOUND = 200_000
_MOST_PLACES = 100  # of one object
_MOST_TRACED = 2_000  # objects whose provenance is looked up
_PIECE = 1 << 20
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
_IN_TREES = (ObjectKind.BLOB, ObjectKind.TREE)
_COMMIT = re.compile(rb"\n?([0-9a-f]{40,64}) ([0-9]{1,18})\n?")
_PARTIAL = (
    *("object-too-large", "too-many-candidates", "object-missing", "git-stopped"),
    *sorted(REASONS),
)
_ARCHIVES = ArchiveBounds()
_CONFIG = {
    "safe.directory": "*",
    "protocol.allow": "never",  # a partial clone must not fetch what it lacks
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.quotePath": "false",
    "log.showSignature": "false",
    "log.showRoot": "true",
    "log.mailmap": "false",
    "diff.renames": "false",
}


def scan_repository(
    path: Path, matcher: Scans, since: str | None = None, max_object: int = _MOST_OBJECT
) -> Inspection:
    """Match every object of the repository at `path`, those that nothing refers to as well; with
    `since`, what the refs reach and that commit does not.

    Objects stream through one at a time. Errors: `ConfigurationError` when git is missing, `path`
    is no repository, or `since` names no commit in it.
    """
    repository = _Repository(path)
    limits = () if since is None else (f"^{repository.commit(since)}",)
    totals: Counter[str] = Counter()
    hits: dict[str, Hit] = {}
    known: dict[str, _Known] = {}
    for object_id, kind, data in repository.objects(limits, max_object):
        totals["objects"] += 1
        totals["blobs"] += kind is ObjectKind.BLOB
        if data is None:
            totals["object-too-large"] += 1
            continue
        totals["bytes"] += len(data)
        if object_id in hits:
            continue
        archives = _ARCHIVES if kind is ObjectKind.BLOB else None
        examined = examine(data, matcher, _MOST_FOUND - totals["candidates"], archives)
        totals.update(examined.met)
        totals["too-many-candidates"] += examined.dropped
        if not examined.spots:
            continue
        totals["candidates"] += len(examined.spots)
        hits[object_id] = Hit(object_id, kind, examined.spots)
        if kind is ObjectKind.COMMIT:
            known[object_id] = (object_id, parse_commit(object_id, data).committed_at, [])
    files = (hit.object_id for hit in hits.values() if hit.kind in _IN_TREES)
    known |= repository.places(files, limits)
    totals += repository.stopped
    return Inspection(
        found=tuple(
            LocatedCandidate(spot.candidate, place, spot.allowed)
            for hit in hits.values()
            for spot in hit.spots
            for place in _at(hit, spot, known.get(hit.object_id))
        ),
        objects=totals["objects"],
        blobs=totals["blobs"],
        bytes=totals["bytes"],
        scanned_bytes=totals["bytes"],
        partial=tuple(f"{reason}: {totals[reason]}" for reason in _PARTIAL if totals[reason]),
    )


def head_of(path: Path) -> str | None:
    """Return the commit that the repository at `path` stands at; None before the first one."""
    return _Repository(path).ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")


_Object = tuple[str, ObjectKind, bytes | None]
_Known = tuple[str, datetime | None, list[str]]  # commit, its time, paths


def _at(hit: Hit, spot: Spot, known: _Known | None) -> Iterator[Place]:
    line, column = spot.line, spot.column
    if known is None:
        yield Place(hit.object_id, hit.kind, spot.path(None), line=line, column=column)
        return
    commit, moment, paths = known
    shown: Sequence[str | None] = paths if hit.kind is ObjectKind.BLOB and paths else (None,)
    for path in shown:
        yield Place(hit.object_id, hit.kind, spot.path(path), commit, moment, line, column)


class _Repository:
    def __init__(self, path: Path) -> None:
        if shutil.which("git") is None:
            raise ConfigurationError("git is not installed; on Debian: apt install git")
        self._path = path
        self._environment = _environment()
        if not path.is_dir() or self.ask("rev-parse", "--git-dir") is None:
            raise ConfigurationError(f"{path} is not a git repository.")
        self.stopped: Counter[str] = Counter()  # what git could not do

    def commit(self, name: str) -> str:
        """Return the id of the commit that `name` means."""
        found = self.ask(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        )
        if found is None:
            raise ConfigurationError(f"{name} is not a commit of {self._path}.")
        return found

    def objects(self, limits: Sequence[str], most: int) -> Iterator[_Object]:
        """Yield (id, kind, content) of each object; None for a content larger than `most`."""
        batch = ("cat-file", "--batch", "--buffer")
        if not limits:
            with self._run(*batch, "--batch-all-objects", "--unordered") as output:
                yield from self._read(output, most)
            return
        listing = ("rev-list", "--objects", "--no-object-names", "--missing=allow-any", "--all")
        with (
            self._run(*listing, *limits) as names,
            self._run(*batch, stdin=names) as output,
        ):
            yield from self._read(output, most)

    def places(self, object_ids: Iterable[str], limits: Sequence[str]) -> dict[str, _Known]:
        """Return, for each object, the first commit that brought it, and its paths there."""
        known: dict[str, _Known] = {}
        traced = sorted(object_ids)[:_MOST_TRACED]
        if not traced:
            return known
        command = (
            *("log", "--all", "--reverse", "--topo-order", "-m", "-r", "-t"),
            *("--raw", "--no-abbrev", "-z", "--no-renames", "--no-ext-diff", "--no-textconv"),
            "--format=tformat:%H %ct",
            *(f"--find-object={object_id}" for object_id in traced),
            *limits,
        )
        wanted = frozenset(traced)
        with self._run(*command) as output:
            for commit, moment, object_id, path in _changes(_split(output)):
                if object_id not in wanted:
                    continue
                first, _, paths = known.setdefault(object_id, (commit, moment, []))
                if first == commit and len(paths) < _MOST_PLACES and path not in paths:
                    paths.append(path)
        return known

    def _read(self, output: IO[bytes], most: int) -> Iterator[_Object]:
        while head := output.readline():
            object_id, kind, *size = head.split()
            if not size:
                self.stopped["object-missing"] += 1
                continue
            left = int(size[0]) + 1  # a newline ends the content
            content: bytes | None = None
            if left - 1 <= most:
                content = output.read(left)
                left -= len(content)
            while left and (piece := output.read(min(left, _PIECE))):
                left -= len(piece)
            if left:
                return  # git died; its exit says so
            yield object_id.decode(), ObjectKind(kind.decode()), content and content[:-1]

    def ask(self, *arguments: str) -> str | None:
        """Return what git prints; None when it refuses."""
        done = subprocess.run(
            ["git", *arguments], cwd=self._path, env=self._environment, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None

    @contextmanager
    def _run(self, *arguments: str, stdin: IO[bytes] | None = None) -> Iterator[IO[bytes]]:
        process = subprocess.Popen(
            ["git", *arguments], cwd=self._path, env=self._environment, bufsize=_PIECE,
            stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        output = cast(IO[bytes], process.stdout)
        if stdin is not None:
            stdin.close()  # the other process holds it now, and must see it end
        try:
            yield output
        except BaseException:
            process.kill()
            raise
        finally:
            output.close()
            if process.wait():
                self.stopped["git-stopped"] += 1


def _split(output: IO[bytes]) -> Iterator[bytes]:
    """Yield the NUL-separated fields of a stream."""
    rest = b""
    while piece := output.read(_PIECE):
        *fields, rest = (rest + piece).split(b"\0")
        yield from fields


def _changes(fields: Iterator[bytes]) -> Iterator[tuple[str, datetime | None, str, str]]:
    """Yield (commit, its time, object id, path) for each object a commit brought."""
    commit, moment = "", None
    for field in fields:
        if field.lstrip(b"\n").startswith(b":"):
            path = next(fields, b"").decode("utf-8", "surrogateescape")
            yield commit, moment, field.split(b" ")[3].decode(), path
        elif found := _COMMIT.fullmatch(field):
            commit = found[1].decode()
            moment = datetime.fromtimestamp(min(int(found[2]), _LAST_SECOND), UTC)


def _environment() -> dict[str, str]:
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",  # a replacement would hide what it replaces
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "",  # none, whatever the repository's own configuration allows
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": str(len(_CONFIG)),
    }
    for index, (key, value) in enumerate(_CONFIG.items()):
        environment[f"GIT_CONFIG_KEY_{index}"] = key
        environment[f"GIT_CONFIG_VALUE_{index}"] = value
    return environment
