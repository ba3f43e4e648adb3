"""The hook for pre-commit: what .pre-commit-hooks.yaml names is there and does what it says."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pre_commit.clientlib import load_manifest

pytestmark = pytest.mark.usefixtures("quick")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hook() -> Any:
    (only,) = load_manifest(str(ROOT / ".pre-commit-hooks.yaml"))  # pre-commit's own check
    return only


def test_the_hook_is_what_pre_commit_asks_for(hook: Any) -> None:
    assert (hook["id"], hook["language"], hook["types"]) == ("patrol", "python", ["file"])


def test_the_hook_fails_for_the_files_it_is_given_and_no_others(
    bare, hook: Any, folder: Path, token: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for name, text in {"staged": token(), "clean a": "x", "-dash": "x", "other": token()}.items():
        (folder / name).write_text(text)
    patrol, *arguments = shlex.split(hook["entry"])
    assert patrol == "patrol"
    failed = bare(*arguments, "staged", "clean a", "./-dash")
    assert (failed.code, failed.lines[0]) == (1, "staged")
    assert "other" not in failed.out
    assert bare(*arguments, "clean a").code == 0
