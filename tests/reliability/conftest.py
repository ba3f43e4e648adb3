"""Installations on each database, whose work is done by processes that die."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from scanner.db.dialect import POSTGRESQL
from scanner.embedded.git_server import GitServer
from tests.conftest import Repository, SmtpServer, serving_smtp
from tests.databases import Databases
from tests.house import House
from tests.reliability.installation import Installation, Workers, new_name


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture(scope="module")
def install(
    request: pytest.FixtureRequest,
    databases: Databases,
    tmp_path_factory: pytest.TempPathFactory,
    stack: ExitStack,
) -> Callable[..., Installation]:
    """SQLite with the embedded broker, or PostgreSQL with Redis; no process of it runs."""

    def build(**settings: Any) -> Installation:
        if databases.kind == POSTGRESQL:
            settings["broker_url"] = request.getfixturevalue("shared_redis").url(database=1)
        folder = tmp_path_factory.mktemp("installation")
        server = stack.enter_context(GitServer(folder / "served"))
        mailbox = stack.enter_context(serving_smtp(SmtpServer()))
        settings["smtp_url"] = f"smtp://127.0.0.1:{mailbox.port}"
        house = House(folder, server, databases, Repository, **settings)
        stack.callback(house.close)
        return Installation(house, mailbox)

    return build


@pytest.fixture(scope="module")
def installation(install: Callable[..., Installation]) -> Installation:
    return install()


@pytest.fixture
def workers(installation: Installation) -> Iterator[Workers]:
    """They have done everything that is done once a day or so."""
    started = Workers(installation.house)
    started.work(installation.leak(new_name(), "revoked"))
    yield started
    started.close()
