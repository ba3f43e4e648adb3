"""Scanning a repository on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scanner.errors import ConfigurationError
from scanner.git.local import scan_repository
from scanner.matcher.engine import Matcher
from scanner.model import Inspection, ObjectKind, Place
from tests.archives.build import COMPRESS, zip_entry, zipped

Token = Callable[[], str]


def places(inspection: Inspection) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for one in inspection.found:
        found.setdefault(one.candidate.secret.reveal().decode(), []).append(one.place)
    return found


def test_every_object_with_its_place(repository, matcher: Matcher, token: Token) -> None:
    leaked, spoken, named = token(), token(), token()
    first = repository.commit({"dir/key.txt": f"a\n b {leaked}\n", "copy.txt": f"a\n b {leaked}\n"})
    repository.git("rm", "--quiet", "-r", "dir")
    second = repository.commit({f"sub/{named}": "x"}, f"says {spoken}")
    found = places(scan_repository(repository.clone, matcher))
    assert [(p.kind, p.commit, p.path, p.line, p.column) for p in found[leaked]] == [
        (ObjectKind.BLOB, first, "copy.txt", 2, 4),
        (ObjectKind.BLOB, first, "dir/key.txt", 2, 4),
    ]
    assert found[leaked][0].committed_at is not None
    assert [(p.kind, p.commit) for p in found[spoken]] == [(ObjectKind.COMMIT, second)]
    assert [(p.kind, p.commit, p.path) for p in found[named]] == [(ObjectKind.TREE, second, None)]


def test_orphans_and_merges_count(repository, matcher: Matcher, token: Token) -> None:
    regretted = token()
    base = repository.commit({"a": "b"})
    repository.commit({"key": regretted})
    repository.git("reset", "--quiet", "--hard", base)
    repository.git("reflog", "expire", "--expire=now", "--all")
    merged = token()
    repository.git("checkout", "--quiet", "-b", "side")
    repository.commit({"g": "side"})
    repository.git("checkout", "--quiet", "-")
    repository.commit({"h": "main"})
    repository.git("merge", "--quiet", "--no-commit", "side")
    merge = repository.commit({"a": merged})
    found = places(scan_repository(repository.clone, matcher))
    (orphan,) = found[regretted]
    assert (orphan.commit, orphan.path) == (None, None)
    assert [(p.commit, p.path) for p in found[merged]] == [(merge, "a")]


def test_since_leaves_what_was_there(repository, matcher: Matcher, token: Token) -> None:
    old, new = token(), token()
    since = repository.commit({"old": old})
    commit = repository.commit({"new": new})
    inspection = scan_repository(repository.clone, matcher, since=since[:12])
    assert [(p.commit, p.path) for p in places(inspection)[new]] == [(commit, "new")]
    assert old not in places(inspection)
    assert (inspection.objects, inspection.blobs) == (3, 1)
    with pytest.raises(ConfigurationError, match="not a commit"):
        scan_repository(repository.clone, matcher, since="--output=x")


def test_archives_are_opened(repository, matcher: Matcher, token: Token) -> None:
    kept, orphan = token(), token()
    commit = repository.commit({"a.zip": zipped({"b/c.txt": b"\n " + kept.encode()})})
    loose = repository.clone / ".git" / "loose"
    loose.write_bytes(COMPRESS["xz"](orphan.encode()))
    repository.git("hash-object", "-w", str(loose))
    locked = zip_entry(b"a", b"packed", method=8, flags=1, size=9)
    repository.commit({"locked": locked})
    inspection = scan_repository(repository.clone, matcher)
    found = places(inspection)
    assert [(p.commit, p.path, p.line, p.column) for p in found[kept]] == [
        (commit, "a.zip!b/c.txt", 2, 2)
    ]
    assert [(p.commit, p.path) for p in found[orphan]] == [(None, "!content")]
    assert inspection.partial == ("archive-member-encrypted: 1",)


def test_bounds_and_odd_repositories(repository, matcher: Matcher, tmp_path: Path, token) -> None:
    leaked = token()
    repository.commit({"big": "x" * 9_000, "key": leaked, "empty": ""})
    inspection = scan_repository(repository.clone, matcher, max_object=8_000)
    assert leaked in places(inspection)
    assert inspection.partial == ("object-too-large: 1",)
    assert scan_repository(repository.bare, matcher).objects == 0
    with pytest.raises(ConfigurationError, match="not a git repository"):
        scan_repository(tmp_path / "nothing", matcher)


def test_a_sha256_repository(sha256_repository, matcher: Matcher, token: Token) -> None:
    leaked = token()
    commit = sha256_repository.commit({"key": leaked})
    found = places(scan_repository(sha256_repository.clone, matcher))
    assert [(p.commit, p.path) for p in found[leaked]] == [(commit, "key")]


def test_replacements_hide_nothing(repository, matcher: Matcher, token: Token) -> None:
    leaked = token()
    repository.commit({"key": leaked, "other": "harmless"})
    bad, good = (repository.git("rev-parse", f"HEAD:{name}") for name in ("key", "other"))
    repository.git("replace", bad, good)
    assert leaked in places(scan_repository(repository.clone, matcher))


def test_nothing_the_repository_configures_runs(
    repository, matcher: Matcher, tmp_path: Path, token: Token
) -> None:
    trap, mark = tmp_path / "trap", tmp_path / "sprung"
    trap.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    trap.chmod(0o755)
    leaked = token()
    since = repository.commit({"a": "b", ".gitattributes": "* diff=trap filter=trap\n"})
    repository.commit({"key": leaked})
    for key in (
        "diff.trap.textconv", "diff.trap.command", "filter.trap.smudge", "diff.external",
        "core.fsmonitor", "core.pager", "pager.log", "gpg.program", "core.sshCommand",
        "core.alternateRefsCommand",
    ):  # fmt: skip
        repository.git("config", key, str(trap))
    repository.git("config", "log.showSignature", "true")
    for start in (None, since):
        assert leaked in places(scan_repository(repository.clone, matcher, since=start))
    assert not mark.exists()


def test_no_git(repository, matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigurationError, match="git is not installed"):
        scan_repository(repository.clone, matcher)
