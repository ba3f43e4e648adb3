"""patrol scan dir: several targets, jobs, .gitignore, and what a terminal shows meanwhile."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.scanning import scan

pytestmark = pytest.mark.usefixtures("quick")


def test_what_is_printed_does_not_depend_on_jobs(
    bare, folder: Path, token: Callable[[], str]
) -> None:
    for number in range(600):
        file = folder / f"{number % 9}" / f"{number}"
        file.parent.mkdir(exist_ok=True)
        file.write_text(token())
    first = bare("scan", "dir", folder, "--format=jsonl", "--jobs=1")
    second = bare("scan", "dir", folder, "--format=jsonl", "--jobs=3")
    assert len(first.lines) == 601
    assert first.lines[:-1] == second.lines[:-1]


@pytest.mark.parametrize("jobs", ["0", "-1", "257", "many"])
def test_jobs_are_a_sensible_number(bare, folder: Path, jobs: str) -> None:
    assert bare("scan", "dir", folder, f"--jobs={jobs}").code == 2


def test_several_files_and_folders(bare, folder: Path, token: Callable[[], str]) -> None:
    for name in ("a", "b/c", "d"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(token())
    findings, summary = scan(bare, "dir", folder / "d", folder / "b")
    assert [finding["path"] for finding in findings] == [f"{folder}/d", f"{folder}/b/c"]
    assert summary["blobs"] == 2
    done = bare("scan", "dir", folder / "d", folder / "missing")
    assert (done.code, done.out) == (2, "")


def test_without_a_target_it_is_the_folder_one_stands_in(
    bare, folder: Path, token: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "b").write_text(token())
    monkeypatch.chdir(folder)
    ((finding,), _) = scan(bare, "dir")
    assert finding["path"] == "a/b"


def test_what_git_ignores_is_left_out_only_when_asked_for(
    bare, folder: Path, token: Callable[[], str]
) -> None:
    (folder / ".git").mkdir()
    (folder / ".gitignore").write_text("*.log\n/build/\n!keep.log\n")
    for name in ("a.log", "keep.log", "build/x", "sub/build/x", "sub/a.log"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(token())
    whole = [finding["path"] for finding in scan(bare, "dir", folder)[0]]
    assert len(whole) == 5
    some = [finding["path"] for finding in scan(bare, "dir", folder, "--gitignore")[0]]
    assert some == [f"{folder}/keep.log", f"{folder}/sub/build/x"]
    # The rules of the repository hold in a part of it, and not for a file that was named.
    assert [f["path"] for f in scan(bare, "dir", folder / "sub", "--gitignore")[0]] == some[1:]
    assert len(scan(bare, "dir", folder / "a.log", "--gitignore")[0]) == 1


def run_in_terminal(bare, *arguments: object, output_too: bool) -> tuple[str, str]:
    """Run patrol with a terminal of 80 columns as standard error; returns (output, terminal)."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "scanner.cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"},
        stdout=theirs if output_too else subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            assert select.select([ours], [], [], 60)[0]
            piece = os.read(ours, 65_536)
        except OSError:  # so a terminal says that nobody holds its other side any more
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    out = b""
    if process.stdout is not None:
        out = process.stdout.read()
        process.stdout.close()
    process.wait(60)
    return out.decode(), shown.decode()


@pytest.fixture
def large(folder: Path, token: Callable[[], str]) -> tuple[Path, str]:
    """A folder that takes longer than a bar has patience: every byte may end a token."""
    secret = token()
    (folder / f"name-{secret}").mkdir()
    for number in range(60):
        (folder / f"name-{secret}" / f"{number:03}").write_bytes(b"a" * 60_000)
    (folder / f"name-{secret}" / "x\x1b[2J").write_text(token())
    return folder, secret


def test_a_terminal_sees_a_bar_and_the_output_is_the_same(bare, large: tuple[Path, str]) -> None:
    folder, secret = large
    out, shown = run_in_terminal(bare, "scan", "dir", folder, "--jobs=1", output_too=False)
    assert re.search(r"\d+ files +\d+ MB/s +\d+ found", shown)
    assert f"npm_…{secret[-4:]}" in shown  # the current file, masked
    assert secret not in shown
    assert "\x1b[2J" not in shown
    plain = bare("scan", "dir", folder, "--jobs=1").out
    assert out.splitlines()[:-1] == plain.splitlines()[:-1]


def test_findings_are_not_written_into_the_bar(bare, large: tuple[Path, str]) -> None:
    folder, _ = large
    _, shown = run_in_terminal(bare, "scan", "dir", folder, "--jobs=1", output_too=True)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in shown.split("\n")]
    (finding,) = [line for line in lines if "npm-access-token" in line]
    assert re.fullmatch(r" +1:1  npm-access-token +npm_….{4}  unchecked\r", finding)


def test_no_terminal_no_bar(bare, large: tuple[Path, str]) -> None:
    done = bare.process("scan", "dir", large[0])
    assert done.stderr == b""
