"""The real servers as fixtures: one of each for a whole test process, and others to break.

    def test_x(redis_server: RedisServer) -> None:            # shared, empty
    def test_y(new_redis: Callable[..., RedisServer]) -> None:  # own: kill, pause, fill it
        broken = new_redis(password="...")
    def test_z(postgres_database: str) -> None:               # address of an empty database
    def test_k(new_postgres: Callable[..., PostgresServer]) -> None:  # own, durable: kill it
    def test_c(chromium: Path) -> None:                       # the browser's program

A test whose server is missing is skipped with what to install, or fails where CI is set. Outside
pytest: `with RedisServer(needs("redis-server")) as server:`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers.postgres import PostgresServer
from tests.servers.present import needs
from tests.servers.redis import RedisServer


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    with RedisServer(needs("redis-server")) as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """A Redis that holds nothing yet. Others use it next: do not break it."""
    shared_redis.flush()
    return shared_redis


@pytest.fixture
def new_redis() -> Iterator[Callable[..., RedisServer]]:
    """Start a Redis of the test's own, with the options of `RedisServer`."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(RedisServer(needs("redis-server"), **options))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A cluster for databases of many tests; it is fast, not durable. Do not break it."""
    with PostgresServer(needs("postgresql"), durable=False) as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of an empty database."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def new_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """Start a durable cluster of the test's own, with the options of `PostgresServer`."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(
            PostgresServer(needs("postgresql"), **options)
        )


@pytest.fixture(scope="session")
def chromium() -> Path:
    return needs("chromium")
