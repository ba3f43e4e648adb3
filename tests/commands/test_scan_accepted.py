"""patrol scan: what is accepted, by a baseline or by a comment, is counted and not reported."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from scanner.errors import ConfigurationError
from scanner.model import Candidate, Checksum, Secret
from scanner.report.baseline import new_baseline, read_baseline
from tests.commands.scanning import scan

pytestmark = pytest.mark.usefixtures("quick")


# Baselines.


def test_what_is_known_is_not_reported_wherever_it_stands(
    bare, folder: Path, tmp_path: Path, token: Callable[[], str]
) -> None:
    file = tmp_path / "known.json"
    known, new = token(), token()
    (folder / "x").write_text(f"a\n{known}\n")
    found, summary = scan(bare, "dir", folder, "--write-baseline", file)
    assert (found, summary["known"], summary["findings"]) == ([], 1, 0)
    (folder / "x").write_text(f"{new}\n\n\n b = {known}")  # it moved, and in its line is another
    (folder / "y").write_text(known)
    ((finding,), summary) = scan(bare, "dir", folder, "--baseline", file)
    assert (finding["line"], finding["secret"][-4:]) == (1, new[-4:])
    assert (summary["known"], summary["findings"]) == (2, 1)
    pretty = bare("scan", "dir", folder, "--baseline", file)
    assert "2 known in the baseline." in pretty.lines
    assert scan(bare, "dir", folder)[1]["known"] == 0


def test_a_baseline_holds_no_token_and_is_the_owners_alone(
    bare, folder: Path, tmp_path: Path, token: Callable[[], str]
) -> None:
    file = tmp_path / "known.json"
    file.write_text("something else")
    file.chmod(0o644)
    secrets = [token() for _ in range(3)]
    (folder / "x").write_text("\n".join(secrets))
    assert bare("scan", "dir", folder, "--write-baseline", file).code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert len(json.loads(text)["known"]) == 3
    for secret in secrets:
        assert not any(secret[at : at + 6] in text for at in range(len(secret) - 5))
    assert [path.name for path in tmp_path.iterdir() if "known" in path.name] == ["known.json"]


def test_a_baseline_is_portable_and_two_have_nothing_in_common(
    bare, folder: Path, tmp_path: Path, token: Callable[[], str]
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    (folder / "x").write_text(token())
    for file in (first, second):
        assert bare("scan", "dir", folder, "--write-baseline", file).code == 0
    assert not set(json.loads(first.read_text())["known"]) & set(
        json.loads(second.read_text())["known"]
    )
    bare.set(PATROL_FINGERPRINT_KEYS="k9:" + "another machine's key")
    assert scan(bare, "dir", folder, "--baseline", first)[1]["known"] == 1


def test_a_baseline_that_is_written_anew_keeps_its_salt_and_forgets_what_is_gone(
    bare, folder: Path, tmp_path: Path, token: Callable[[], str]
) -> None:
    file = tmp_path / "known.json"
    stays, goes, comes = token(), token(), token()
    (folder / "x").write_text(f"{stays} {goes}")
    assert bare("scan", "dir", folder, "--write-baseline", file).code == 0
    before = json.loads(file.read_text())
    (folder / "x").write_text(f"{stays} {comes}")
    done = bare("scan", "dir", folder, "--baseline", file, "--write-baseline", file)
    assert done.code == 0
    after = json.loads(file.read_text())
    assert after["salt"] == before["salt"]
    assert len(set(after["known"]) & set(before["known"])) == 1
    assert len(after["known"]) == 2


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", "{", "null", "\x00", "é", '{"format": "patrol-baseline-1"}',
        '{"format": "patrol-baseline-2", "salt": "' + "0" * 64 + '", "known": []}',
        '{"format": "patrol-baseline-1", "salt": "' + "0" * 63 + '", "known": []}',
        '{"format": "patrol-baseline-1", "salt": "' + "0" * 64 + '", "known": [7]}',
        '{"format": "patrol-baseline-1", "salt": "' + "0" * 64 + '", "known": ["token"]}',
        '{"version": "1.5.0", "plugins_used": [], "results": {}}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_baseline_is_one_sentence(
    bare, folder: Path, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(content, encoding="latin-1")
    done = bare("scan", "dir", folder, "--baseline", file)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert "is no baseline of Patrol" in done.err


def test_a_baseline_that_is_not_there_or_cannot_be_written_is_one_sentence(
    bare, folder: Path, tmp_path: Path
) -> None:
    for arguments, said in (
        (["--baseline", tmp_path / "missing"], "cannot be read (No such file"),
        (["--baseline", tmp_path], "cannot be read (Is a directory"),
        (["--write-baseline", tmp_path / "no" / "such"], "cannot be written (No such file"),
        (["--write-baseline", folder], "cannot be written (Is a directory"),
    ):
        done = bare("scan", "dir", folder, *arguments)
        assert done.code == 2
        assert said in done.err
    assert not list(tmp_path.glob(".code*"))


def test_another_pattern_of_the_same_bytes_is_another_token(tmp_path: Path) -> None:
    def candidate(pattern: str, secret: bytes) -> Candidate:
        return Candidate(pattern, "x", 0, 1, Secret(secret), Checksum.ABSENT, "")

    baseline = new_baseline()
    baseline.add(candidate("a", b"secret"))
    baseline.write(tmp_path / "b")
    read = read_baseline(tmp_path / "b")
    assert candidate("a", b"secret") in read
    assert candidate("b", b"secret") not in read
    assert candidate("a", b"secres") not in read
    with pytest.raises(ConfigurationError):
        read_baseline(tmp_path / "c")


def test_an_incomplete_scan_stays_incomplete(
    bare, folder: Path, tmp_path: Path, token: Callable[[], str]
) -> None:
    (folder / "x").write_text(token())
    (folder / "large").write_bytes(b"")
    with (folder / "large").open("r+b") as file:
        file.truncate((128 << 20) + 1)
    assert bare("scan", "dir", folder, "--write-baseline", tmp_path / "b").code == 2


# Comments.


def test_an_allowed_token_is_counted_and_not_reported(
    bare, folder: Path, token: Callable[[], str]
) -> None:
    (folder / "x").write_text(
        f"{token()} # patrol:allow\n{token()}\n# pragma: allowlist nextline secret\n{token()}"
    )
    ((finding,), summary) = scan(bare, "dir", folder)
    assert (finding["line"], summary["allowed"], summary["findings"]) == (2, 2, 1)
    findings, summary = scan(bare, "dir", folder, "--no-allow-comments")
    assert (len(findings), summary["allowed"]) == (3, 0)
    pretty = bare("scan", "dir", folder).lines[-1]
    assert pretty == "2 allowed by a comment; --no-allow-comments reports them, too."


def test_all_kinds_heed_comments(bare, repository, token: Callable[[], str]) -> None:
    text = f"{token()} // gitleaks:allow\n"
    repository.commit({"a": text})
    assert scan(bare, "git", repository.clone)[1]["allowed"] == 1
    done = bare.process("scan", "stdin", stdin=text.encode())
    assert done.returncode == 0
    assert b"1 allowed by a comment" in done.stdout


def test_what_is_allowed_is_not_written_to_a_baseline(
    bare, folder: Path, tmp_path: Path, token: Callable[[], str]
) -> None:
    (folder / "x").write_text(f"{token()} # patrol:allow\n{token()}")
    assert bare("scan", "dir", folder, "--write-baseline", tmp_path / "b").code == 0
    assert len(json.loads((tmp_path / "b").read_text())["known"]) == 1


def test_a_token_that_works_is_reported_whatever_accepts_it(
    patrol, folder: Path, tmp_path: Path
) -> None:
    (active, active_id), file = patrol.issue(), tmp_path / "known.json"
    (folder / "x").write_text(f"{active} # patrol:allow")
    (folder / "y").write_text(active)
    assert scan(patrol, "dir", folder, "--write-baseline", file)[1]["known"] == 1
    assert scan(patrol, "dir", folder, "--baseline", file)[0] == []
    findings, _ = scan(patrol, "dir", folder, "--baseline", file, "--verify")
    assert [finding["validity"] for finding in findings] == ["active", "active"]
    again = tmp_path / "again.json"
    assert patrol("scan", "dir", folder, "--verify", "--write-baseline", again).code == 1
    assert json.loads(again.read_text())["known"] == []
    assert patrol("tokens", "revoke", active_id).code == 0
    _, summary = scan(patrol, "dir", folder, "--baseline", file, "--verify")
    assert (summary["findings"], summary["known"], summary["allowed"]) == (0, 1, 1)
