"""A world to scan in: see world.py."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from scanner.guard import ConnectGuard
from scanner.patterns.generate import generate
from scanner.scan.run import Scanner
from tests.scans.world import LONG, OURS, ZEROS, ShyFetcher, World, build_world


@pytest.fixture
def world(database_url: str, git_server, ruleset) -> Iterator[World]:
    fetcher = ShyFetcher(ConnectGuard([git_server.address]))
    built = build_world(database_url, git_server.url, fetcher, ruleset)
    yield built
    built.engine.dispose()


@pytest.fixture
def ours(world: World) -> Callable[[], str]:
    """Issue a token of the store's own pattern."""

    def issue() -> str:
        secret = generate(OURS)
        world.store.issue(secret, pattern=OURS, mask="…abcd")
        return secret.reveal().decode()

    return issue


@pytest.fixture
def silent() -> Iterator[str]:
    """A host that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def slow_push(world: World, silent: str, git_server) -> tuple[Scanner, str]:
    """A scanner that has one push of a silent host, and the push."""
    slow = replace(world, intake=replace(world.intake, github_url=f"http://{silent}"))
    scan = slow.push("acme/slow", ZEROS, "a" * 40)
    fetcher = ShyFetcher(ConnectGuard([git_server.address, silent]), timeout=LONG)
    return replace(world.scanner, fetcher=fetcher), scan
