"""What several rooms' tests share: patterns, tokens, and repositories made and served by git."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from scanner.embedded.git_server import GitServer, git
from scanner.git.guard import ConnectGuard
from scanner.git.smart_http import SmartHttpFetcher
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Ruleset
from scanner.model import FetchPlan
from scanner.patterns.generate import generate
from scanner.patterns.loader import load


class Repository:
    """A bare repository on the server and a clone to commit in."""

    def __init__(self, server: GitServer, name: str, folder: Path, object_format: str) -> None:
        self.bare = server.create(name, object_format)
        self.url = f"{server.url}/{name}.git"
        self.clone = folder / name.replace("/", "-")
        git("init", "--quiet", f"--object-format={object_format}", str(self.clone))
        self.git("remote", "add", "origin", str(self.bare))

    def git(self, *arguments: str) -> str:
        return git(*arguments, cwd=self.clone)

    def commit(self, files: Mapping[str, str | bytes], message: str = "change") -> str:
        for name, content in files.items():
            path = self.clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def push(self, *refs: str) -> None:
        self.git("push", "--quiet", "--force", "origin", *(refs or ("HEAD:refs/heads/main",)))

    def pack(self, *arguments: str) -> bytes:
        """All objects as one pack, made by git itself."""
        names = self.git("rev-list", "--objects", "--no-object-names", "--all")
        listing = self.clone / ".git" / "all-objects"
        listing.write_text(names + "\n")
        prefix = self.clone / ".git" / "made"
        with listing.open() as stdin:
            name = subprocess.run(
                ["git", "pack-objects", "--quiet", "--no-reuse-delta", *arguments, str(prefix)],
                cwd=self.clone,
                stdin=stdin,
                check=True,
                capture_output=True,
                text=True,
            ).stdout.strip()
        return prefix.with_name(f"made-{name}.pack").read_bytes()


@pytest.fixture(scope="session")
def ruleset() -> Ruleset:
    return load()


@pytest.fixture(scope="session")
def matcher(ruleset: Ruleset) -> Matcher:
    return Matcher(ruleset)


@pytest.fixture
def token(ruleset: Ruleset) -> Callable[[], str]:
    pattern = next(p for p in ruleset.patterns if p.id == "npm-access-token")
    return lambda: generate(pattern).reveal().decode()


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with GitServer(tmp_path / "served") as running:
        yield running


@pytest.fixture
def repository(git_server: GitServer, tmp_path: Path) -> Repository:
    return Repository(git_server, "acme/app", tmp_path, "sha1")


@pytest.fixture
def sha256_repository(git_server: GitServer, tmp_path: Path) -> Repository:
    return Repository(git_server, "acme/new", tmp_path, "sha256")


@pytest.fixture
def fetcher(git_server: GitServer) -> SmartHttpFetcher:
    return SmartHttpFetcher(ConnectGuard([git_server.address]))


@pytest.fixture
def fetch(fetcher: SmartHttpFetcher) -> Callable[..., bytes]:
    """Fetch wants (and haves) of a URL; returns the pack's bytes."""

    def run(
        url: str, *wants: str, haves: tuple[str, ...] = (), by: SmartHttpFetcher | None = None
    ) -> bytes:
        async def once() -> bytes:
            async with (by or fetcher).fetch(FetchPlan(url, wants, haves)) as pack:
                data = pack.file.read()
                assert len(data) == pack.size
                return data

        return asyncio.run(once())

    return run
