"""Repositories that are pushed to, written with git itself straight into the host's folders."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ZEROS = "0" * 40
_WHO = "Ada <ada@contoso.example> 1790000000 +0000"
_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


@dataclass(frozen=True)
class Pushed:
    """What a host tells of one push."""

    repository: str
    ref: str
    before: str
    after: str
    forced: bool = False


class Repository:
    """A bare repository; every commit is a push."""

    def __init__(self, root: Path, name: str, origin: Repository | None = None) -> None:
        self.name = name
        self._path = root / f"{name}.git"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if origin is None:
            _git("init", "--quiet", "--bare", "--initial-branch=main", str(self._path))
            self._heads: dict[str, str] = {}
        else:
            _git("clone", "--quiet", "--bare", "--no-local", str(origin._path), str(self._path))
            self._heads = dict(origin._heads)

    @property
    def heads(self) -> dict[str, str]:
        """Branch -> commit."""
        return dict(self._heads)

    def push(
        self, branch: str, files: dict[str, str], *, onto: str | None = None, is_tag: bool = False
    ) -> Pushed:
        """Commit files on a branch (or a tag); `onto` moves it there first, by force."""
        ref = f"refs/tags/{branch}" if is_tag else f"refs/heads/{branch}"
        before = self._heads.get(branch, "")
        parent = onto or before or self._heads.get("main", "")
        lines = [f"commit {ref}", "mark :1", f"committer {_WHO}", *_data("change")]
        lines += [f"from {parent}"] if parent else []
        for path, content in files.items():
            lines += [f"M 100644 inline {path}", *_data(content)]
        lines += ["", "get-mark :1", "done", ""]
        after = _git(
            "fast-import", "--quiet", "--force", "--done", at=self._path, said="\n".join(lines)
        )
        if not is_tag:
            self._heads[branch] = after
        return Pushed(self.name, ref, before or ZEROS, after, forced=onto is not None)

    def delete(self, branch: str) -> Pushed:
        """Delete a branch."""
        before = self._heads.pop(branch)
        _git("update-ref", "-d", f"refs/heads/{branch}", at=self._path)
        return Pushed(self.name, f"refs/heads/{branch}", before, ZEROS)


def _data(text: str) -> list[str]:
    return [f"data {len(text.encode())}", text]


def _git(*arguments: str, at: Path | None = None, said: str | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=at, env=_ENVIRONMENT, input=said, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
