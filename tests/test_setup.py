"""The locks and the script that builds .venv from them; nothing here reaches a network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-test.lock")


def pins(lock: str) -> dict[str, tuple[str, int]]:
    """Package name -> its whole pin and the number of its hashes."""
    found: dict[str, tuple[str, int]] = {}
    text = (ROOT / lock).read_text("utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            pin, *hashes = line.split("--hash=sha256:")
            match = re.fullmatch(r"([\w.-]+)==\S+( ; .+)?", pin.strip())
            assert match, f"{lock}: not a pin: {pin}"
            found[normal(match[1])] = (pin.strip(), len(hashes))
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_in(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[\[<>=!~; ]", each)[0]) for each in requirements}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_is_hashed(lock: str) -> None:
    assert [pin for pin, hashes in pins(lock).values() if hashes == 0] == []


def test_the_locks_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    run = names_in(project["project"]["dependencies"] + project["dependency-groups"]["build"])
    assert run - set(pins("requirements.lock")) == set()
    tests = names_in(project["dependency-groups"]["test"])
    assert tests - set(pins("requirements-test.lock")) == set()


def test_the_test_lock_holds_the_other_one_whole() -> None:
    run, tests = (set(pins(lock).values()) for lock in LOCKS)
    assert run - tests == set()


def test_the_lock_still_serves_pythons_before_3_11_3() -> None:
    # Debian 12 has 3.11.2, where Redis needs a backport that later versions do not.
    assert "python_full_version < '3.11.3'" in pins("requirements.lock")["async-timeout"][0]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the set-up script reads, in a folder with a space."""
    copy = tmp_path / "a copy"
    (copy / "scripts").mkdir(parents=True)
    for script in ("setup.sh", "python_env.sh"):
        shutil.copy(ROOT / "scripts" / script, copy / "scripts")
    for name in ("pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, copy)
    return copy


def set_up(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tree / "scripts" / "setup.sh", *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_python_that_does_not_serve_is_one_clear_sentence(tree: Path) -> None:
    done = set_up(tree, "run", PYTHON="/bin/false")
    assert done.returncode == 2
    assert done.stderr == "setup: PYTHON=/bin/false is no Python 3.11 or newer.\n"
    assert not (tree / ".venv").exists()


def test_a_wrong_word_is_one_clear_sentence(tree: Path) -> None:
    done = set_up(tree, "everything")
    assert (done.returncode, done.stderr) == (2, "setup: usage: scripts/setup.sh [run|test]\n")


def test_a_failed_installation_is_never_taken_for_a_finished_one(tree: Path) -> None:
    # A pip that always fails stands in for an unreachable index: the second call must try again.
    (tree / ".venv").mkdir()
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tree / ".venv"], check=True, timeout=30
    )
    for package in (tree / ".venv" / "lib").glob("python3.*/site-packages"):
        (package / "pip").mkdir()
        (package / "pip" / "__init__.py").touch()
        (package / "pip" / "__main__.py").write_text(
            "import sys\nsys.exit('--version' not in sys.argv)\n", "utf-8"
        )
    for _ in range(2):
        done = set_up(tree, "run")
        assert done.returncode == 2
        assert "could not be installed" in done.stderr
