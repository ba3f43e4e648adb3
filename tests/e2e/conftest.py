"""A whole Patrol on loopback: `patrol up` in processes of its own, a real git server, real mail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scanner.embedded.git_server import GitServer
from tests.databases import Databases
from tests.house import House, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    with GitServer(tmp_path_factory.mktemp("git") / "served") as running:
        yield running


@pytest.fixture(scope="module")
def build_house(
    tmp_path_factory: pytest.TempPathFactory,
    server: GitServer,
    databases: Databases,
    make_repository: Callable[..., Any],
) -> Iterator[Callable[..., House]]:
    built: list[House] = []

    def build(**settings: Any) -> House:
        folder = tmp_path_factory.mktemp("house")
        built.append(House(folder, server, databases, make_repository, **settings))
        return built[-1]

    yield build
    for house in built:
        house.close()


@pytest.fixture(scope="module")
def house(build_house: Callable[..., House]) -> House:
    """A running `patrol up`."""
    built = build_house()
    process = built.start("up")

    def ready() -> bool:
        assert process.poll() is None, (built.folder / "up.out").read_text()
        return built.is_ready()

    until("patrol up to be ready", ready)
    return built


@pytest.fixture(scope="session")
def wait() -> Callable[[str, Callable[[], Any]], Any]:
    return until
