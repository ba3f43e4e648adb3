"""Scans that remember: nothing is missed, nothing is remembered that is not durable, and what is
false does not stay."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, select, update

from scanner.cache.redis_ledger import RedisLedger
from scanner.db.ledger import DatabaseLedger
from scanner.db.schema import (
    blob_ledger,
    incidents,
    outbox,
    repositories,
    scanned_heads,
    scans,
    sightings,
)
from scanner.git.inline import InlineInspector
from scanner.guard import ConnectGuard
from scanner.keyring import Key
from scanner.matcher.engine import Matcher
from scanner.model import Inspection
from scanner.ports import BlobLedger, KnownBlobs, Pack
from scanner.scan.run import Scanner
from tests.scans.world import DAY_MS, ZEROS, ShyFetcher, World
from tests.servers.process import free_port
from tests.servers.redis import access_to

FILES = 16  # of over 300 KB: enough to be asked about


def large(number: int, text: str = "") -> str:
    return f"{number} and nothing else\n" * 17_000 + text


def files(text: str = "") -> dict[str, str | bytes]:
    return {f"f{number}": large(number, text) for number in range(FILES)}


class SeeingInspector(InlineInspector):
    """Keeps what it saw."""

    def __init__(self, matcher: Matcher) -> None:
        super().__init__(matcher)
        self.seen: list[Inspection] = []

    def inspect(
        self, pack: Pack, hash_size: int = 20, known: KnownBlobs | None = None
    ) -> Inspection:
        self.seen.append(super().inspect(pack, hash_size, known))
        return self.seen[-1]


class NoLedger:
    """Knows nothing, ever."""

    def known(self, _ruleset: str, _object_ids: Sequence[str]) -> set[str]:
        return set()

    def remember(self, _connection: Connection, _ruleset: str, _ids: Iterable[str]) -> None:
        pass

    def publish(self, _ruleset: str, _object_ids: Collection[str]) -> None:
        pass

    def distrust(self, _object_id: str) -> None:
        raise AssertionError


class ListeningLedger(DatabaseLedger):
    """Tells what others could see when it was told to publish."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, keep_ms=DAY_MS, most_rows=1_000)
        self.published: list[tuple[set[str], set[str]]] = []

    def publish(self, ruleset: str, object_ids: Collection[str]) -> None:
        self.published.append((set(object_ids), self.known(ruleset, list(object_ids))))


@pytest.fixture
def inspector(world: World) -> SeeingInspector:
    return SeeingInspector(world.scanner.matcher)


@pytest.fixture
def scanner(world: World, inspector: SeeingInspector) -> Scanner:
    """One that believes the ledger: what is doubted is a subject of its own."""
    return replace(world.scanner, inspector=inspector, sample=1 << 40)


def scan(world: World, scanner: Scanner, repository: Any, head: str) -> None:
    repository.push()
    world.push(repository.name, ZEROS, head)
    assert scanner.run_batch()


def ids_of(repository: Any) -> dict[str, str]:
    lines = repository.git("ls-tree", "-r", "HEAD").splitlines()
    return {line.split("\t")[1]: line.split()[2] for line in lines}


def remembered(world: World) -> set[str]:
    return {row["object_id"] for row in world.rows(blob_ledger)}


def test_a_forks_large_files_are_matched_once(
    world: World,
    scanner: Scanner,
    inspector: SeeingInspector,
    make_repository,
    git_server,
    tmp_path,
) -> None:
    for name in ("acme/app", "else/fork"):
        repository = make_repository(git_server, name, tmp_path)
        scan(world, scanner, repository, repository.commit({**files(), "small": "x"}))
    first, second = inspector.seen
    assert (first.known_blobs, second.known_blobs) == (0, FILES)
    assert (first.objects, first.blobs, first.bytes) == (
        second.objects, second.blobs, second.bytes,
    )  # fmt: skip
    assert second.scanned_bytes < first.scanned_bytes // 100
    assert remembered(world) == set(ids_of(repository).values()) - {ids_of(repository)["small"]}
    assert {row["ruleset"] for row in world.rows(blob_ledger)} == {scanner.matcher.digest}
    # The scan of the fork is as complete as the other.
    assert [row["state"] for row in world.rows(scans)] == ["done", "done"]
    assert len(world.rows(scanned_heads)) == 2


def test_small_pushes_have_nothing_to_do_with_it(world: World, repository) -> None:
    class Untouched(NoLedger):
        def known(self, _ruleset: str, _object_ids: Sequence[str]) -> set[str]:
            raise AssertionError

        def publish(self, _ruleset: str, _object_ids: Collection[str]) -> None:
            raise AssertionError

    untouched = replace(world.scanner, ledger=Untouched())
    scan(world, untouched, repository, repository.commit({"f": large(1), "small": "x"}))
    assert [row["state"] for row in world.rows(scans)] == ["done"]


LEDGERS = ["off", "database", "redis", "redis gone"]


def ledger_of(kind: str, world: World, request: pytest.FixtureRequest) -> BlobLedger:
    behind = DatabaseLedger(world.engine, keep_ms=DAY_MS, most_rows=1_000)
    if kind in ("off", "database"):
        return NoLedger() if kind == "off" else behind
    url = f"redis://127.0.0.1:{free_port()}"
    if kind == "redis":
        url = request.getfixturevalue("redis_server").url()
    return RedisLedger(behind, access_to(url), [Key("k1", b"k" * 32)], timeout=5)


def places(world: World) -> list[tuple[Any, ...]]:
    with world.engine.connect() as connection:
        rows = connection.execute(
            select(
                repositories.c.name, sightings.c.object_id, sightings.c.path, sightings.c.start,
                sightings.c.pattern, sightings.c.validity, sightings.c.commit,
            ).join(repositories, repositories.c.id == sightings.c.repository_id)
        ).all()  # fmt: skip
    return sorted(map(tuple, rows), key=repr)


@pytest.mark.parametrize("kind", LEDGERS)
def test_forks_and_duplicates_are_sighted_whatever_is_remembered(
    world: World, scanner: Scanner, inspector: SeeingInspector, make_repository, git_server,
    tmp_path, ours, request: pytest.FixtureRequest, kind: str,
) -> None:  # fmt: skip
    """Against what is there: every repository, path and place of each leak, large file or small."""
    scanner = replace(scanner, ledger=ledger_of(kind, world, request))
    tokens = [ours() for _ in range(3)]
    leaks: dict[str, str | bytes] = {
        "large": large(90, tokens[0]), "copy/of/large": large(90, tokens[0]),
        "large-too": large(91, f"{tokens[0]}\n{tokens[1]}\n"), "small": tokens[2],
    }  # fmt: skip
    expected = []
    for name in ("acme/app", "else/fork", "else/other"):
        repository = make_repository(git_server, name, tmp_path)
        repository.commit({**files(), **leaks, "own": name}, f"of {name}")
        scan(world, scanner, repository, repository.git("rev-parse", "HEAD"))
        expected += [(name, path) for path in ("large", "copy/of/large", "small")]
        expected += [(name, "large-too")] * 2
    found = places(world)
    assert sorted((name, path) for name, _, path, *_ in found) == sorted(expected)
    assert {(row["phase"], row["sightings"]) for row in world.rows(incidents)} == {
        ("open", 9), ("open", 3),
    }  # fmt: skip
    known = [inspection.known_blobs for inspection in inspector.seen]
    assert known == ([0, 0, 0] if kind == "off" else [0, FILES, FILES])
    assert remembered(world).isdisjoint(object_id for _, object_id, *_ in found)


def test_another_ruleset_knows_nothing(
    world: World, scanner: Scanner, make_repository, git_server, tmp_path, ruleset
) -> None:
    seen = []
    for name, patterns in (
        ("acme/app", ruleset.patterns), ("else/fork", ruleset.patterns[1:]),
    ):  # fmt: skip
        matcher = Matcher(replace(ruleset, patterns=patterns))
        looking = SeeingInspector(matcher)
        repository = make_repository(git_server, name, tmp_path)
        other = replace(scanner, matcher=matcher, inspector=looking)
        scan(world, other, repository, repository.commit(files()))
        seen += looking.seen
    assert [inspection.known_blobs for inspection in seen] == [0, 0]
    assert len(world.rows(blob_ledger)) == 2 * FILES


def test_it_is_told_to_others_after_the_commit(world: World, scanner: Scanner, repository) -> None:
    ledger = ListeningLedger(world.engine)
    scan(world, replace(scanner, ledger=ledger), repository, repository.commit(files()))
    ((told, visible),) = ledger.published
    assert told == visible == set(ids_of(repository).values())


def test_a_scan_that_lost_its_lease_is_not_remembered(
    world: World, scanner: Scanner, repository
) -> None:
    ledger = ListeningLedger(world.engine)

    class Late(SeeingInspector):
        def inspect(self, *arguments: Any) -> Inspection:
            with world.engine.begin() as connection:  # somebody else took over meanwhile
                connection.execute(update(scans).values(fence=scans.c.fence + 1))
            return super().inspect(*arguments)

    late = replace(scanner, ledger=ledger, inspector=Late(scanner.matcher))
    scan(world, late, repository, repository.commit(files()))
    assert [row["state"] for row in world.rows(scans)] == ["running"]
    assert (remembered(world), ledger.published) == (set(), [])


def test_a_lease_lost_in_the_last_moment_takes_the_entries_back(
    world: World, scanner: Scanner, repository
) -> None:
    class Slow(ListeningLedger):
        def remember(self, connection: Connection, ruleset: str, ids: Iterable[str]) -> None:
            super().remember(connection, ruleset, ids)
            connection.execute(update(scans).values(fence=scans.c.fence + 1))

    ledger = Slow(world.engine)
    scan(world, replace(scanner, ledger=ledger), repository, repository.commit(files()))
    assert [row["state"] for row in world.rows(scans)] == ["running"]
    assert (remembered(world), ledger.published) == (set(), [])


def test_a_verdict_that_fails_takes_the_entries_back(
    world: World, scanner: Scanner, repository
) -> None:
    class Failing(ListeningLedger):
        def remember(self, connection: Connection, ruleset: str, ids: Iterable[str]) -> None:
            super().remember(connection, ruleset, ids)
            raise RuntimeError("out of order")

    ledger = Failing(world.engine)
    scan(world, replace(scanner, ledger=ledger), repository, repository.commit(files()))
    assert [row["state"] for row in world.rows(scans)] == ["pending"]
    assert (remembered(world), ledger.published) == (set(), [])


def test_a_history_that_is_read_in_part_remembers_what_was_read_whole(
    world: World, scanner: Scanner, repository, git_server
) -> None:
    repository.commit({"big": secrets.token_hex(300_000)})
    for number in range(60):
        repository.commit({"big": str(number)})
    head = repository.commit(files())
    small = ShyFetcher(ConnectGuard([git_server.address]), max_bytes=200_000)
    scan(world, replace(scanner, fetcher=small), repository, head)
    (row,) = world.rows(scans)
    assert row["partial"] == ["history-too-large: 1"]
    assert world.rows(scanned_heads) == []
    assert len(remembered(world)) == FILES


# Somebody made the ledger say what is false.


def poison(world: World, object_ids: Iterable[str]) -> None:
    with world.engine.begin() as connection:
        connection.execute(
            insert(blob_ledger),
            [
                {"ruleset": world.scanner.matcher.digest, "object_id": one, "scanned_at": 1 << 44}
                for one in object_ids
            ],
        )


def test_it_can_hide_no_small_file(world: World, scanner: Scanner, repository, ours) -> None:
    """And no message, and no name: those are never asked about."""
    token, said, named = ours(), ours(), ours()
    head = repository.commit({**files(), "small": token, f"{named}/x": "1"}, f"oops {said}")
    poison(world, repository.git("rev-list", "--objects", "--no-object-names", "--all").split())
    scan(world, scanner, repository, head)
    assert len(world.rows(incidents)) == 3


def test_what_it_hides_is_found_when_it_is_doubted(
    world: World, scanner: Scanner, repository, ours, caplog
) -> None:
    head = repository.commit({**files(), "leak": large(50, ours())})
    poison(world, ids_of(repository).values())
    doubting = replace(scanner, sample=1)
    scan(world, doubting, repository, head)
    (row,) = world.rows(scans)
    assert (row["state"], row["attempts"], row["retries"]) == ("pending", 0, 1)
    assert "ledger was false" in row["error"]
    assert world.rows(incidents) == world.rows(blob_ledger) == []
    (alarm,) = world.rows(outbox)
    assert alarm["notice"]["context"]["title"] == "The ledger of files without tokens was false"
    assert world.actions() == ["ledger.distrusted"]
    world.pass_time()
    assert doubting.run_batch()
    assert len(world.rows(incidents)) == 1
    assert len(remembered(world)) == FILES
    assert [row["state"] for row in world.rows(scans)] == ["done"]


def test_heads_that_it_called_read_are_read_again(
    world: World, scanner: Scanner, inspector: SeeingInspector, make_repository, git_server,
    tmp_path, ours,
) -> None:  # fmt: skip
    hidden, seen = (make_repository(git_server, name, tmp_path) for name in ("a/hidden", "a/seen"))
    head = hidden.commit({**files(), "leak": large(50, ours())})
    poison(world, ids_of(hidden).values())
    scan(world, scanner, hidden, head)
    assert world.rows(incidents) == []  # nobody doubted
    scan(world, replace(scanner, sample=1), seen, seen.commit({"leak": large(50, "x"), **files()}))
    assert world.rows(blob_ledger) != []  # what it knew of this one was right
    head = seen.commit({"more": hidden.clone.joinpath("leak").read_bytes(), **files("more")})
    scan(world, replace(scanner, sample=1), seen, head)
    assert world.rows(scanned_heads) == []
    world.pass_time()
    world.push("a/hidden", ZEROS, hidden.git("rev-parse", "HEAD"))
    while scanner.run_batch():
        pass
    assert [row["sightings"] for row in world.rows(incidents)] == [2]


def test_what_is_right_is_confirmed_and_stays(
    world: World,
    scanner: Scanner,
    inspector: SeeingInspector,
    make_repository,
    git_server,
    tmp_path,
) -> None:
    for name in ("acme/app", "else/fork"):
        repository = make_repository(git_server, name, tmp_path)
        scan(world, replace(scanner, sample=1), repository, repository.commit(files()))
    assert [inspection.known_blobs for inspection in inspector.seen] == [0, 0]
    assert len(remembered(world)) == FILES
    assert world.actions() == []


def test_several_scans_at_once(
    world: World, scanner: Scanner, make_repository, git_server, tmp_path, ours
) -> None:
    """Each of them learns, asks and is asked while the others do."""
    token = ours()
    for number in range(4):
        repository = make_repository(git_server, f"acme/r{number}", tmp_path)
        head = repository.commit({**files(), "leak": large(50, token)})
        repository.push()
        world.push(f"acme/r{number}", ZEROS, head)
    assert scanner.run_batch()
    assert [row["state"] for row in world.rows(scans)] == ["done"] * 4
    assert [row["sightings"] for row in world.rows(incidents)] == [4]
    assert len(remembered(world)) == FILES
