"""Engines on a migrated database of each test's own, and the values that its rooms are fed with."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from scanner.db.engine import create_database_engine
from scanner.db.scans import PushRow, accept_push, repository_id
from scanner.model import (
    Candidate,
    Checksum,
    LocatedCandidate,
    Lookup,
    ObjectKind,
    Place,
    Secret,
    TokenRecord,
    Validity,
)
from scanner.patterns.generate import generate

ROOT = Path(__file__).parents[2]
HOST = "https://github.example"


@pytest.fixture
def connect(database_url: str) -> Iterator[Callable[[], Engine]]:
    """Engines on the test's database: each is what another process would have."""
    made: list[Engine] = []

    def build() -> Engine:
        made.append(create_database_engine(database_url))
        return made[-1]

    yield build
    for engine in made:
        engine.dispose()


@pytest.fixture
def engine(connect: Callable[[], Engine]) -> Engine:
    return connect()


@pytest.fixture
def at_once() -> Callable[..., list[Any]]:
    """Run calls in threads that begin together; returns what they return."""

    def run(*calls: Callable[[], Any]) -> list[Any]:
        gate = threading.Barrier(len(calls))
        answers: list[Any] = [None] * len(calls)

        def one(place: int, call: Callable[[], Any]) -> None:
            gate.wait(30)
            answers[place] = call()

        threads = [threading.Thread(target=one, args=pair) for pair in enumerate(calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    return run


@pytest.fixture
def in_processes() -> Callable[..., list[str]]:
    """Run one Python program in several processes that begin together; returns what they print.

    The program calls `begin()` when it has imported what it needs.
    """
    header = "def begin():\n    print('ready', flush=True)\n    input()\n"

    def run(program: str, count: int, *arguments: object) -> list[str]:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", header + program, *map(str, arguments)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},  # this checkout
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        printed = [process.communicate(timeout=60)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * count
        return printed

    return run


@pytest.fixture(scope="session")
def new_secret() -> Callable[[], Secret]:
    rng = random.Random(7)
    return lambda: generate("npm-access-token", rng)


@pytest.fixture
def known() -> Callable[..., Lookup]:
    """A store's answer for a token it knows."""

    def build(
        number: int = 1,
        validity: Validity = Validity.ACTIVE,
        *,
        store: str = "built-in",
        organisation_id: str = "org-1",
    ) -> Lookup:
        record = TokenRecord(
            store=store,
            token_id=f"t-{number}",
            name="deploy",
            pattern="npm-access-token",
            mask="npm_…a1B2",
            organisation_id=organisation_id,
            organisation="Acme",
            organisation_contact="security@acme.example",
            owner_id="owner-1",
            owner_name="Ada",
            owner_email="ada@acme.example",
            scopes=("read", "write"),
            valid_from=None,
            valid_to=None,
        )
        return Lookup(validity, record)

    return build


@pytest.fixture
def seen_at(new_secret: Callable[[], Secret]) -> Callable[..., LocatedCandidate]:
    """A candidate at a place of its own."""

    def build(
        number: int = 0, secret: Secret | None = None, pattern: str = "npm-access-token"
    ) -> LocatedCandidate:
        value = secret or new_secret()
        start = 100 * number
        candidate = Candidate(
            pattern=pattern,
            issuer="npm",
            start=start,
            end=start + len(value.reveal()),
            secret=value,
            checksum=Checksum.VALID,
            mask="npm_…a1B2",
        )
        return LocatedCandidate(candidate, Place("b" * 40, ObjectKind.BLOB, "a.env", "c" * 40))

    return build


@pytest.fixture
def add_scan() -> Callable[..., dict[str, Any]]:
    """Accept a push of a repository; returns what a claim's row says of the scan."""

    def add(
        connection: Connection, repository: str = "acme/app", body: str = "1"
    ) -> dict[str, Any]:
        push = PushRow(
            hook="default",
            body_digest=f"{repository}-{body}",
            host=HOST,
            repository=repository,
            ref="refs/heads/main",
            before="0" * 40,
            after="a" * 40,
            forced=False,
            delivery=None,
        )
        scan_id, _ = accept_push(connection, push)
        return {"id": scan_id, "repository_id": repository_id(connection, HOST, repository)}

    return add
