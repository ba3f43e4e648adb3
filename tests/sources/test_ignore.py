"""`--gitignore` leaves out exactly what git would: real git is asked about the same tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.sources.walk import list_files

NAMES = ["a", "b", "ab", "a.b", "a b", "#a", "!a", "a]", "\\a", "é", "a\n", " a", "a ", "[a", "a*"]
PIECES = [
    "a", "b", "ab", "*", "?", "*.b", "a*", "**", "[ab]", "[!a]", "[^b]", "[a-b]*", "[]]", "[]a]*",
    "\\a", "\\#a", "\\!a", "#a", "a ", "a\\ ", " a", "é", "[é]", "a**", "**b", "***", "[b-a]",
    "[[:alpha:]]", "[![:alpha:]]a", "[", "[a", "a]", "\\*", "a\\", "\\\\a", "[\\]]", "[a\\-b]",
    "[\\a]", "[\\\\-b]",
]  # fmt: skip

paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
pattern = st.builds(
    lambda mark, start, pieces, end: mark + start + "/".join(pieces) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/", "**/"]),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/**", " ", "  ", "\t", "\r"]),
)
ignore_file = st.lists(
    st.one_of(
        pattern, st.sampled_from(["", "# a", "/", "!", "//", "**/", "*/", "**", "/*", "/**"])
    ),
    max_size=6,
)


def plain_git(tree: Path, *arguments: str) -> bytes:
    environment = {
        "PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1",
        "LANG": "C.UTF-8",
    }  # fmt: skip
    return subprocess.run(
        ["git", *arguments], cwd=tree, env=environment, check=True, capture_output=True
    ).stdout


@pytest.fixture(scope="module")
def bare_repository() -> Iterator[Path]:
    """An empty repository's own folder, to be copied: quicker than making one."""
    with tempfile.TemporaryDirectory() as folder:
        plain_git(Path(folder), "init", "--quiet")
        yield Path(folder) / ".git"


def build(tree: Path, names: list[str], ignores: Mapping[str, list[str]], git: Path) -> None:
    shutil.copytree(git, tree / ".git")
    for name in names:
        path = tree / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue  # another name is a file where this one has a folder
    for place, lines in ignores.items():
        if (tree / place).is_dir():
            (tree / place / ".gitignore").write_text("\n".join(lines), newline="")


def kept_by_git(tree: Path) -> list[str]:
    listed = plain_git(tree, "ls-files", "-z", "--others", "--exclude-standard")
    return sorted(os.fsdecode(name) for name in listed.split(b"\0") if name)


def kept_by_us(tree: Path, below: str = "") -> list[str]:
    batches = list_files([tree / below], gitignore=True)
    return sorted(os.path.relpath(path, tree) for batch in batches for path in batch.paths)


@settings(max_examples=int(os.environ.get("IGNORE_EXAMPLES", "150")), deadline=None)
@given(
    names=st.lists(paths, max_size=12),
    top=ignore_file,
    inner=st.dictionaries(st.sampled_from(["a", "b", "ab", "a/a", "a/b"]), ignore_file, max_size=2),
    exclude=ignore_file,
)
def test_a_tree_is_read_as_git_would(
    bare_repository: Path,
    names: list[str],
    top: list[str],
    inner: dict[str, list[str]],
    exclude: list[str],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        build(tree, names, {"": top, **inner}, bare_repository)
        (tree / ".git" / "info" / "exclude").write_text("\n".join(exclude), newline="")
        kept = kept_by_git(tree)
        assert kept_by_us(tree) == kept
        for below in ("a", "a/b"):  # what lies above a target holds within it, too
            if (tree / below).is_dir():
                inside = [name for name in kept if name.startswith(f"{below}/")]
                assert set(inside) <= set(kept_by_us(tree, below))
