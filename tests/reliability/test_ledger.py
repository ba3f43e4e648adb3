"""kill -9 at every step of a scan that remembers: an entry of the blob ledger implies that its
blob's verdict is durable, and the copy in Redis implies the entry."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from sqlalchemy import select

from scanner.db.schema import blob_ledger, repositories, scans
from tests.house import ZEROS
from tests.reliability.installation import Installation, Leak, Workers, new_name
from tests.servers.redis import LEDGER_KEYS, RedisServer

FILES = 15  # of over 300 KB: fewer bytes are scanned sooner than remembered


class Remembering:
    """An installation with a ledger, and what it remembers of pushes without a leak."""

    def __init__(self, installation: Installation, server: RedisServer) -> None:
        self._house, self._server = installation.house, server

    def push(self, about: str) -> tuple[Leak, set[str]]:
        """Push large files, which nobody has told Patrol of; returns them with the files' ids."""
        house = self._house
        repository = house.repository(f"acme/{new_name()}")
        text = f"{about} and nothing else\n"
        files = {f"f{n}": f"{n}\n" + text * (310_000 // len(text)) for n in range(FILES)}
        after = repository.commit(files)
        repository.push()
        body = house.push_event(repository.name, ZEROS, after)
        deliver = [body.decode(), {"X-Hub-Signature-256": house.sign(body)}]
        order = {"do": "work", "deliver": deliver, "by_secret": False, "away": None}
        ids = repository.git("ls-tree", "-r", "--format=%(objectname)", "HEAD").split()
        return Leak("", repository.name, order), set(ids)

    def is_done(self, pushed: Leak) -> bool:
        mine = repositories.c.id == scans.c.repository_id
        query = select(scans.c.state).where(mine, repositories.c.name == pushed.repository)
        return [row["state"] for row in self._house.rows(query)] == ["done"]

    def entries(self, ids: set[str]) -> set[str]:
        known = self._house.rows(select(blob_ledger.c.object_id))
        return ids.intersection(row["object_id"] for row in known)

    def copies(self, ids: set[str]) -> set[str]:
        with self._server.client() as client:
            names = client.keys(f"{LEDGER_KEYS}*")
        return ids.intersection(name.rpartition(":")[2] for name in names)


def test_killed_at_every_step(
    install: Callable[..., Installation], redis_server: RedisServer
) -> None:
    installation = install(ledger_url=redis_server.url())
    with closing(Workers(installation.house)) as workers:
        kill_everywhere(installation, workers, Remembering(installation, redis_server))


def kill_everywhere(installation: Installation, workers: Workers, memory: Remembering) -> None:
    for _ in range(2):  # what is done once a day is done by the first
        dry, ids = memory.push(new_name())
        points = workers.work(dry)
    assert memory.entries(ids) == memory.copies(ids) == ids
    seen = set()
    for at, label in enumerate(points, 1):
        about = new_name()
        pushed, ids = memory.push(about)
        assert workers.dies(pushed, at, label), f"nothing died at {at}. {label}"
        is_done, entries, copies = memory.is_done(pushed), memory.entries(ids), memory.copies(ids)
        assert entries == (ids if is_done else set()), label
        assert copies <= entries, label
        seen.add((is_done, bool(copies)))
        installation.rest()
        workers.work(pushed)
        assert memory.is_done(pushed), label
        assert memory.entries(ids) == ids, label
        if is_done and not copies:  # a fork's scan finds in the database what was never copied
            fork, _ = memory.push(about)
            workers.work(fork)
            assert memory.is_done(fork)
            services = installation.house.services
            assert services.ledger.known(services.matcher.digest, sorted(ids)) == ids
    # With its copies as well: what the first two saw, for no point comes behind the copy.
    assert {(False, False), (True, False)} <= seen
