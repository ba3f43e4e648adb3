"""patrol scan: what it prints, for people and for programs, and what it exits with."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scanner.patterns.generate import generate
from tests.commands.scanning import read, scan

pytestmark = pytest.mark.usefixtures("quick")


def test_jsonl_is_one_object_a_finding_and_the_summary_last(
    bare, folder: Path, token: Callable[[], str]
) -> None:
    secret = token()
    text = f"a\nkey = {secret}\n"
    (folder / "x").write_text(text)
    (folder / "y").write_text("nothing")
    ((finding,), summary) = scan(bare, "dir", folder)
    assert re.fullmatch("[0-9a-f]{64}", finding.pop("fingerprint"))
    assert finding == {
        "pattern": "npm-access-token", "issuer": "npm", "path": str(folder / "x"), "commit": None,
        "blob": None, "kind": "blob", "line": 2, "column": 7, "start": 8, "end": 8 + len(secret),
        "secret": f"npm_…{secret[-4:]}", "checksum": "valid", "encoding": "plain",
        "validity": "unchecked",
    }  # fmt: skip
    assert summary.pop("seconds") >= 0
    size = len(text) + 7
    assert summary == {
        "blobs": 2, "bytes": size, "scanned_bytes": size, "findings": 1, "known": 0, "allowed": 0,
        "partial": [],
    }  # fmt: skip


def test_a_fingerprint_is_the_same_wherever_a_token_is(
    bare, folder: Path, token: Callable[[], str]
) -> None:
    first, second = token(), token()
    (folder / "x").write_text(f"{first} {second}")
    (folder / "y").write_text(f"{first}")
    findings, _ = scan(bare, "dir", folder)
    prints = [finding["fingerprint"] for finding in findings]
    assert prints[0] == prints[2] != prints[1]


def test_pretty_is_a_line_a_finding_under_its_file_and_a_last_line(
    bare, folder: Path, token: Callable[[], str]
) -> None:
    first, second, third = token(), token(), generate("github-pat").reveal().decode()
    (folder / "x").write_text(f"\n {first}\n{second}")
    (folder / "y").write_text(f"{third[:-1]}{'a' if third[-1] != 'a' else 'b'}")
    done = bare("scan", "dir", folder)
    *findings, last = done.lines
    assert [line.split() for line in findings] == [
        [f"{folder}/x"],
        ["2:2", "npm-access-token", f"npm_…{first[-4:]}", "unchecked"],
        ["3:1", "npm-access-token", f"npm_…{second[-4:]}", "unchecked"],
        [f"{folder}/y"],
        ["1:1", "github-pat", f"ghp_…{third[-4:-1]}{'a' if third[-1] != 'a' else 'b'}",
         "(wrong", "checksum)", "unchecked"],
    ]  # fmt: skip
    assert all(len(line) <= 80 for line in findings if line.startswith(" "))
    assert re.fullmatch(r"3 findings in 2 files, 123 bytes, \d+\.\d\d s\.", last)
    assert (done.code, done.err) == (1, "")
    (folder / "x").unlink()
    (folder / "y").unlink()
    done = bare("scan", "dir", folder)
    assert done.code == 0
    assert done.out.startswith("0 findings in 0 files, 0 bytes")


def test_show_secrets_shows_them_and_nothing_else_does(
    bare, folder: Path, token: Callable[[], str]
) -> None:
    secret, in_path = token(), token()
    (folder / in_path).write_text(secret)
    for style in ("pretty", "jsonl"):
        hidden = bare("scan", "dir", folder, f"--format={style}")
        assert secret not in hidden.out
        assert in_path not in hidden.out
        shown = bare("scan", "dir", folder, f"--format={style}", "--show-secrets")
        assert secret in shown.out
        assert in_path in shown.out


def test_what_was_not_read_is_named_masked(bare, folder: Path, token: Callable[[], str]) -> None:
    in_path = token()
    deep = folder / in_path
    deep.mkdir()
    here = os.open(deep, os.O_RDONLY)
    for _ in range(20):  # deeper than a path can say
        os.mkdir("x" * 250, dir_fd=here)
        inner = os.open("x" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    findings, summary = scan(bare, "dir", folder)
    assert findings == []
    (reason,) = summary["partial"]
    assert reason.endswith(": File name too long")
    assert in_path not in reason
    assert f"npm_…{in_path[-4:]}" in reason
    done = bare("scan", "dir", folder)
    assert done.lines[-1].startswith("not complete: ")
    assert in_path not in done.lines[-1]
    assert done.code == 2  # nothing found is not the same as clean


def test_a_hostile_path_moves_no_cursor(bare, folder: Path, token: Callable[[], str]) -> None:
    for name in (b"\x1b[2J", b"a\nb", "\u202egnp.exe".encode(), b"\xff\xfe"):
        (folder / os.fsdecode(name)).write_text(token())
    done = bare("scan", "dir", folder)
    assert len(done.lines) == 9
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\udc80-\udcff]", done.out)
    paths = {finding["path"].removeprefix(f"{folder}/") for finding in scan(bare, "dir", folder)[0]}
    assert paths == {"\x1b[2J", "a\nb", "\u202egnp.exe", r"\xff\xfe"}


def test_a_pipe_is_read(bare, token: Callable[[], str]) -> None:
    secret = token()
    done = bare.process(
        "scan", "stdin", "--format=jsonl", stdin=f"\xff\n{secret}".encode("latin-1")
    )
    (finding,), summary = read(done.stdout.decode())
    assert (finding["path"], finding["line"], summary["blobs"]) == ("-", 2, 1)
    assert (done.returncode, done.stderr) == (1, b"")
    assert bare.process("scan", "stdin").returncode == 0


# Choices.


def test_patterns_narrow_what_is_looked_for(bare, folder: Path, token: Callable[[], str]) -> None:
    (folder / "x").write_text(f"{token()} {generate('github-pat').reveal().decode()}")
    for only, found in (
        ("github-pat", ["github-pat"]),
        ("npm-access-token, github-pat", ["npm-access-token", "github-pat"]),
        ("github-oauth", []),
    ):
        findings, _ = scan(bare, "dir", folder, "--patterns", only)
        assert [finding["pattern"] for finding in findings] == found


@pytest.mark.parametrize("only", ["nonsense", "github-pat,nonsense", "", ",", " "])
def test_a_pattern_nobody_knows_is_one_sentence(bare, folder: Path, only: str) -> None:
    done = bare("scan", "dir", folder, "--patterns", only)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert "Unknown pattern" in line
    assert "`patrol patterns list` names all" in line


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_can_be_chosen(
    bare, folder: Path, token: Callable[[], str], code: int
) -> None:
    assert bare("scan", "dir", folder, "--exit-code", code).code == 0
    (folder / "x").write_text(token())
    assert bare("scan", "dir", folder, "--exit-code", code).code == code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dir", "missing"], "missing does not exist."),
        (["git", "missing"], "missing is not a git repository."),
        (["git", "."], " is not a git repository."),
        (["dir", "/dev/null"], "/dev/null is neither a folder nor a file"),
        (["dir", "x" * 300], "cannot be read (File name too long)"),
    ],
)
def test_what_cannot_be_scanned_is_one_sentence(bare, arguments: list[str], said: str) -> None:
    done = bare("scan", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1


# git.


def test_a_repository_is_scanned_and_since_leaves_out_what_was_there(
    bare, repository: Any, token: Callable[[], str]
) -> None:
    old, new = token(), token()
    before = repository.commit({"a": old})
    after = repository.commit({"b/c": f"\n{new}"})
    findings, _ = scan(bare, "git", repository.clone)
    assert {finding["commit"] for finding in findings} == {before, after}
    ((finding,), _) = scan(bare, "git", repository.clone, "--since", before)
    assert (finding["path"], finding["line"], finding["commit"]) == ("b/c", 2, after)
    assert finding["blob"] == repository.git("rev-parse", "HEAD:b/c")
    assert scan(bare, "git", repository.clone, "--since", "HEAD")[0] == []
    pretty = bare("scan", "git", repository.clone, "--since", before).lines
    assert pretty[0] == f"b/c  in {after[:12]}"
    assert pretty[1].split()[:2] == ["2:1", "npm-access-token"]


@pytest.mark.parametrize("since", ["nonsense", "0" * 40, "--all", "HEAD:a", ""])
def test_a_since_that_is_no_commit_is_one_sentence(bare, repository: Any, since: str) -> None:
    repository.commit({"a": "x"})
    done = bare("scan", "git", repository.clone, f"--since={since}")
    assert (done.code, done.out) == (2, "")
    assert "is not a commit of" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "kind", "others"),
    [
        ("--since=HEAD", "git", ("dir", "stdin")),
        ("--gitignore", "dir", ("git", "stdin")),
        ("--jobs=2", "dir", ("git", "stdin")),
    ],
)
def test_some_options_are_for_one_kind_alone(
    bare, option: str, kind: str, others: tuple[str, ...]
) -> None:
    for other in others:
        done = bare("scan", other, option)
        assert (done.code, done.out) == (2, "")
        assert f"{option.partition('=')[0]} goes with: patrol scan {kind}" in done.err


def test_git_takes_one_target_and_stdin_none(bare) -> None:
    for arguments in (["git", ".", "."], ["stdin", "."]):
        done = bare("scan", *arguments)
        assert (done.code, done.out) == (2, "")


# The store's word.


def test_verify_asks_the_store_about_its_own_patterns_alone(
    patrol, folder: Path, token: Callable[[], str]
) -> None:
    (active, _), (revoked, revoked_id) = patrol.issue(), patrol.issue()
    assert patrol("tokens", "revoke", revoked_id).code == 0
    strangers = generate("azure-devops-pat").reveal().decode()
    for name, secret in {"a": active, "b": revoked, "c": strangers, "d": token()}.items():
        (folder / name).write_text(secret)
    expected = ["active", "revoked", "never_issued", "unchecked"]
    findings, _ = scan(patrol, "dir", folder, "--verify")
    assert [finding["validity"] for finding in findings] == expected
    pretty = patrol("scan", "dir", folder, "--verify").lines[:-1]
    assert [line.split()[-1] for line in pretty if line.startswith(" ")] == expected
    unasked, _ = scan(patrol, "dir", folder)
    assert {finding["validity"] for finding in unasked} == {"unchecked"}
    # A scan looks, and does nothing else.
    assert patrol("leaks", "list").out == "None.\n"
    assert [token["validity"] for token in patrol("tokens", "list", "--format=json").json()] == [
        "revoked",
        "active",
    ]


def test_verify_shows_the_store_nothing_of_a_strangers(
    bare, folder: Path, token: Callable[[], str]
) -> None:
    (folder / "x").write_text(token())
    # There is no database: whoever asked the store would fail.
    ((finding,), _) = scan(bare, "dir", folder, "--verify")
    assert finding["validity"] == "unchecked"


def test_verify_without_a_database_is_one_sentence(bare, folder: Path) -> None:
    (folder / "x").write_text(generate("azure-devops-pat").reveal().decode())
    done = bare("scan", "dir", folder, "--verify")
    assert done.code == 2
    assert "patrol db upgrade" in done.err


# The issuer's own patterns.


@pytest.mark.parametrize("way", ["setting", "folder", "data directory"])
def test_an_own_pattern_is_found_and_can_be_issued(
    patrol, folder: Path, own_pattern: Callable[..., Path], way: str
) -> None:
    if way == "data directory":
        own_pattern(patrol.data / "patterns" / "acme.toml")
    else:
        file = own_pattern(folder.parent / "own" / "acme.toml")
        patrol.set(PATROL_PATTERNS=file if way == "setting" else file.parent)
    raw, token_id = patrol.issue("--pattern=acme-token")
    assert re.fullmatch("acme_[A-Za-z0-9]{32}", raw)
    (folder / "x").write_text(raw)
    ((finding,), _) = scan(patrol, "dir", folder, "--verify")
    assert (finding["pattern"], finding["issuer"]) == ("acme-token", "acme")
    assert (finding["secret"], finding["validity"]) == (f"acme_…{raw[-4:]}", "active")
    assert patrol("tokens", "show", token_id, "--format=json").json()["pattern"] == "acme-token"
    assert "acme-token" in [
        each["id"] for each in patrol("patterns", "list", "--format=json").json()
    ]
    assert patrol("patterns", "test").code == 0


def test_an_own_pattern_that_is_wrong_is_one_sentence(
    bare, tmp_path: Path, own_pattern: Callable[..., Path]
) -> None:
    file = own_pattern(tmp_path / "own.toml")
    bare.set(PATROL_PATTERNS=file)
    for text in ("[[", 'issuer = "x"', file.read_text() + 'typo = "x"\n'):
        file.write_text(text)
        for arguments in (["scan", "dir", "."], ["patterns", "list"], ["tokens", "issue",
                          "--organisation=o", "--owner=o", "--name=n"]):  # fmt: skip
            done = bare(*arguments)
            assert (done.code, done.out) == (2, "")
            assert len(done.err.splitlines()) == 1
            assert "own.toml" in done.err
