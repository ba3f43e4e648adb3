"""kill -9 between any two steps of a scan that remembers: an entry implies a durable verdict."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from scanner.db.schema import blob_ledger, scans
from scanner.sources.github_push import Push
from tests.e2e.test_kill import Worker, pass_time
from tests.servers.redis import LEDGER_KEYS, RedisServer

pytestmark = pytest.mark.long

ZEROS = "0" * 40
FILES = 15  # of over 300 KB


def push(house: Any, name: str, about: str) -> set[str]:
    """Push large files and store the push, as the web process does; returns the files' ids."""
    repository = house.repository(f"acme/{name}")
    text = f"{about} and nothing else\n"
    after = repository.commit(
        {f"f{n}": f"{n}\n" + text * (310_000 // len(text)) for n in range(FILES)}
    )
    repository.push()
    digest = f"digest-{name}"
    house.services.intake.accept(
        Push("default", digest, f"acme/{name}", "refs/heads/main", ZEROS, after, False), None
    )
    return set(repository.git("ls-tree", "-r", "--format=%(objectname)", "HEAD").split())


def state(house: Any, name: str) -> str:
    (row,) = house.rows(select(scans).where(scans.c.body_digest == f"digest-{name}"))
    return str(row["state"])


def remembered(house: Any, ids: set[str]) -> set[str]:
    return ids.intersection(row["object_id"] for row in house.rows(select(blob_ledger)))


def copied(server: RedisServer, ids: set[str]) -> set[str]:
    with server.client() as client:
        return ids.intersection(name.rpartition(":")[2] for name in client.keys(f"{LEDGER_KEYS}*"))


def test_killed_at_every_commit(build_house: Any, redis_server: RedisServer) -> None:
    house = build_house(ledger_url=redis_server.url())
    worker = Worker(house)
    seen = set()
    number, is_dying = 0, True
    while is_dying:
        number += 1
        for moment in ("before", "after"):
            name = f"{moment}-{number}"
            ids = push(house, name, name)
            is_dying = worker.dies(number, moment)
            done = state(house, name) == "done"
            entries, copies = remembered(house, ids), copied(redis_server, ids)
            assert entries == (ids if done else set()), name
            assert copies <= entries, name
            seen.add((done, bool(copies)))
            pass_time(house)
            worker.work()
            assert state(house, name) == "done", name
            assert remembered(house, ids) == ids, name
    assert number > 4  # claimed, fetched, matched, verdict
    assert {(False, False), (True, False)} <= seen  # also between the commit and the copy
    # What was never copied, because of the kill, is found in the database by a fork's scan.
    ids = push(house, "fork", "after-4")
    worker.work()
    assert state(house, "fork") == "done"
    assert house.services.ledger.known(house.services.matcher.digest, sorted(ids)) == ids
    worker.close()
