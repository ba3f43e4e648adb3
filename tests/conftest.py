"""What several rooms' tests share: patterns and tokens, repositories made and served by git, a real
SMTP server; and the other real servers (tests/servers/fixtures.py tells how to use them)."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from scanner.embedded.git_server import GitServer, git
from scanner.git.smart_http import SmartHttpFetcher
from scanner.guard import ConnectGuard
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Ruleset
from scanner.model import FetchPlan
from scanner.patterns.generate import generate
from scanner.patterns.loader import load

pytest_plugins = ["tests.servers.fixtures", "tests.databases"]


_LONG = ("reliability", "chaos", "e2e", "image", "bench")  # rooms with tests of half a minute


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the long ones begin first: at the end one process would do them alone."""
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(_LONG)}
    items.sort(
        key=lambda item: next(
            (ranks[folder] for folder in item.path.parents if folder in ranks), len(ranks)
        )
    )


class Repository:
    """A bare repository on the server and a clone to commit in."""

    def __init__(
        self, server: GitServer, name: str, folder: Path, object_format: str = "sha1"
    ) -> None:
        self.name = name
        self.bare = server.create(name, object_format)
        self.url = f"{server.url}/{name}.git"
        self.clone = folder / name.replace("/", "-")
        git("init", "--quiet", f"--object-format={object_format}", str(self.clone))
        self.git("remote", "add", "origin", str(self.bare))

    def git(self, *arguments: str) -> str:
        return git(*arguments, cwd=self.clone)

    def commit(
        self, files: Mapping[str, str | bytes], message: str = "change", *options: str
    ) -> str:
        for name, content in files.items():
            path = self.clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message, *options)
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
def make_repository() -> type[Repository]:
    return Repository


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
    return Repository(git_server, "acme/app", tmp_path)


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


@dataclass
class SmtpServer:
    """An SMTP server whose answers can be set; `got` holds (envelope recipients, message)."""

    port: int = 0
    rcpt: str | None = None
    data: str = "250 OK"
    got: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    signed_in: list[LoginPassword] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if self.rcpt:
            return self.rcpt
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        if self.data.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            message = message_from_bytes(content, _class=EmailMessage, policy=default)
            self.got.append((envelope.rcpt_tos, message))
        return self.data

    def check(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> Any:
        self.signed_in.append(data)
        return AuthResult(success=data.password == b"p@ss/word:1", handled=False)


@contextmanager
def serving_smtp(server: SmtpServer, *, auth: bool = False) -> Iterator[SmtpServer]:
    """Run the server in a thread of its own; its socket listens before the thread starts."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server.port = listener.getsockname()[1]
    loop = asyncio.new_event_loop()
    finished = asyncio.Event()
    extra: dict[str, Any] = (
        {"auth_require_tls": False, "authenticator": server.check} if auth else {}
    )

    async def main() -> None:
        accepting = await loop.create_server(
            lambda: SMTP(server, hostname="localhost", loop=loop, **extra), sock=listener
        )
        await finished.wait()
        accepting.close()

    thread = threading.Thread(target=loop.run_until_complete, args=[main()])
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(finished.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.fixture
def smtp_server() -> Iterator[SmtpServer]:
    with serving_smtp(SmtpServer()) as running:
        yield running


@pytest.fixture
def smtp_server_with_sign_in() -> Iterator[SmtpServer]:
    """One that knows who signs in: the password is p@ss/word:1."""
    with serving_smtp(SmtpServer(), auth=True) as running:
        yield running
