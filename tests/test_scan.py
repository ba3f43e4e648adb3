"""The first use case, with a store that can be told to fail: what may travel, what must wait."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine, Table, select, update

from scanner.db import freezes, leases
from scanner.db.engine import create_database_engine
from scanner.db.leases import Patience
from scanner.db.schema import audit_events, incidents, outbox, scanned_heads, scans, sightings
from scanner.db.seals import Sealer
from scanner.db.upgrade import upgrade_database
from scanner.errors import InspectionError
from scanner.git.inline import InlineInspector
from scanner.git.smart_http import SmartHttpFetcher
from scanner.guard import ConnectGuard
from scanner.keyring import Key
from scanner.matcher.engine import Matcher
from scanner.model import FetchPlan, Lookup, Secret, Validity
from scanner.patterns.generate import generate
from scanner.scan import Scanner
from scanner.sources.github_push import Push
from scanner.sources.intake import Intake
from scanner.stores.memory import MemoryTokenStore

ZEROS = "0" * 40
OURS = "azure-devops-pat"


class AskedStore(MemoryTokenStore):
    """Remembers what it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Secret] = []

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        self.asked += secrets
        return super().find(secrets)


class DyingInspector:
    """Stands for a parsing child that dies of every pack."""

    def inspect(self, _pack: object, _hash_size: int = 20) -> Any:
        raise InspectionError("The process that reads packs died of this one.")


class SurprisingInspector:
    """Stands for a fault of ours, with a token in its text."""

    def __init__(self, token: str) -> None:
        self._token = token

    def inspect(self, _pack: object, _hash_size: int = 20) -> Any:
        raise RuntimeError(f"cannot read {self._token}")


class ShyFetcher(SmartHttpFetcher):
    """Remembers its plans."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.plans: list[FetchPlan] = []

    def fetch(self, plan: FetchPlan) -> Any:
        self.plans.append(plan)
        return super().fetch(plan)


@dataclass
class World:
    engine: Engine
    store: AskedStore
    scanner: Scanner
    intake: Intake
    fetcher: ShyFetcher

    def push(self, name: str, before: str, after: str, **fields: Any) -> str:
        digest = secrets.token_hex(32)
        push = Push("default", digest, name, "refs/heads/main", before, after, forced=False)
        return self.intake.accept(replace(push, **fields), None)[0]

    def rows(self, table: Table) -> list[Mapping[str, Any]]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(table)).mappings())

    def actions(self) -> list[str]:
        return sorted(row["action"] for row in self.rows(audit_events))

    def pass_time(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(update(scans).values(available_at=0))


@pytest.fixture
def world(tmp_path: Path, git_server, ruleset) -> World:
    engine = create_database_engine(f"sqlite:///{tmp_path}/patrol.db")
    upgrade_database(engine)
    bound = frozenset({OURS})
    matcher, store = Matcher(ruleset, bound=bound), AskedStore()
    sealer = Sealer([Key("s1", Fernet.generate_key())])
    fetcher = ShyFetcher(ConnectGuard([git_server.address]))
    scanner = Scanner(
        engine=engine, fetcher=fetcher, inspector=InlineInspector(matcher), matcher=matcher,
        store=store, bound=bound, fingerprint_key=Key("f1", b"k" * 32), sealer=sealer,
        patience=Patience(60_000, 3, 2),
    )  # fmt: skip
    return World(engine, store, scanner, Intake(engine, matcher, sealer, git_server.url), fetcher)


@pytest.fixture
def ours(world: World) -> Callable[[], str]:
    """Issue a token of the store's own pattern."""

    def issue() -> str:
        secret = generate(OURS)
        world.store.issue(secret, pattern=OURS, mask="…abcd")
        return secret.reveal().decode()

    return issue


def test_a_strangers_secret_does_not_travel(world: World, repository, ours) -> None:
    stranger, mine, unknown = generate("github-pat").reveal().decode(), ours(), generate(OURS)
    head = repository.commit({"k": f"{stranger}\n{mine}\n{unknown.reveal().decode()}\n"})
    repository.push()
    world.push("acme/app", ZEROS, head)
    assert world.scanner.run_batch()
    assert not world.scanner.run_batch()
    assert Secret(stranger.encode()) not in world.store.asked
    assert {Secret(mine.encode()), unknown} <= set(world.store.asked)
    assert len(world.store.asked) == 3  # with the control
    (incident,) = world.rows(incidents)
    kept = sorted((s["pattern"], s["validity"], s["incident_id"]) for s in world.rows(sightings))
    assert kept == [
        (OURS, "active", incident["id"]),
        (OURS, "never_issued", None),
        ("github-pat", "unchecked", None),
    ]


def test_one_token_many_times_is_asked_once(world: World, repository, ours) -> None:
    token = ours()
    head = repository.commit({f"file-{n}": f"{n} {token} {token}\n" for n in range(5)})
    repository.push()
    world.push("acme/app", ZEROS, head)
    world.scanner.run_batch()
    assert len(world.store.asked) == 2
    assert len(world.rows(sightings)) == 10
    assert [row["sightings"] for row in world.rows(incidents)] == [10]
    assert world.actions().count("leak.found") == 1


def test_a_store_that_knows_everything_is_frozen(world: World, repository, ours) -> None:
    head = repository.commit({"k": ours()})
    repository.push()
    world.push("acme/app", ZEROS, head)
    world.store.claims = Validity.ACTIVE
    for _ in range(2):
        world.scanner.run_batch()
        world.pass_time()
    assert world.rows(incidents) == []
    assert world.actions() == ["store.frozen"]
    (alarm,) = world.rows(outbox)
    assert (alarm["kind"], alarm["notice"]["to"]) == ("alarm", None)  # the operator
    world.store.claims = None
    with world.engine.begin() as connection:
        assert freezes.release(connection, world.store.name, "admin")
    world.scanner.run_batch()
    assert [row["phase"] for row in world.rows(incidents)] == ["open"]


def test_a_store_that_is_away_claims_no_head(world: World, repository, ours) -> None:
    head = repository.commit({"k": ours()})
    repository.push()
    world.push("acme/app", ZEROS, head)
    world.store.is_available = False
    world.scanner.run_batch()
    (scan,) = world.rows(scans)
    assert (scan["state"], scan["attempts"], scan["retries"]) == ("pending", 0, 1)
    assert world.rows(scanned_heads) == []
    assert world.rows(sightings) == []
    world.store.is_available = True
    world.pass_time()
    world.scanner.run_batch()
    assert [row["object_id"] for row in world.rows(scanned_heads)] == [head]
    assert len(world.rows(incidents)) == 1


def test_a_host_that_is_away_is_asked_again_until_patience_ends(world: World) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody listens: every connection is refused
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        replace(world, intake=replace(world.intake, github_url=f"http://{address}")).push(
            "acme/app", ZEROS, "a" * 40
        )
        scanner = replace(world.scanner, fetcher=ShyFetcher(ConnectGuard([address])))
        for _ in range(3):
            scanner.run_batch()
            world.pass_time()
    (scan,) = world.rows(scans)
    assert (scan["state"], scan["attempts"], scan["retries"]) == ("parked", 0, 3)
    assert world.actions() == ["scan.parked"]


def test_what_kills_the_parsing_child_is_set_apart(world: World, repository) -> None:
    head = repository.commit({"a": "a"})
    repository.push()
    world.push("acme/app", ZEROS, head)
    dying = replace(world.scanner, inspector=DyingInspector())
    for attempts in (1, 2, 3):
        dying.run_batch()
        assert [row["attempts"] for row in world.rows(scans)] == [attempts]
        world.pass_time()
    dying.run_batch()
    assert [row["state"] for row in world.rows(scans)] == ["parked"]
    assert world.actions() == ["scan.parked"]


def test_a_fault_of_ours_hurts_neither_neighbours_nor_secrets(
    world: World, repository, ours, caplog
) -> None:
    token = ours()
    head = repository.commit({"k": token})
    repository.push()
    world.push("acme/app", ZEROS, head)
    world.push("acme/app", ZEROS, ZEROS)
    replace(world.scanner, inspector=SurprisingInspector(token)).run_batch()
    first, second = sorted(world.rows(scans), key=lambda row: row["state"])
    assert (first["state"], second["state"]) == ("done", "pending")
    assert second["error"].startswith("RuntimeError at inspect, line ")
    assert token not in second["error"] + caplog.text


def test_a_history_over_the_bound_is_read_shallowly(
    world: World, repository, ours, git_server
) -> None:
    repository.commit({"big": secrets.token_hex(300_000)})
    for number in range(60):
        repository.commit({"big": str(number)})
    token = ours()
    head = repository.commit({"k": token})
    repository.push()
    small = ShyFetcher(ConnectGuard([git_server.address]), max_bytes=100_000)
    world.push("acme/app", ZEROS, head)
    replace(world.scanner, fetcher=small).run_batch()
    (scan,) = world.rows(scans)
    assert (scan["state"], scan["partial"]) == ("partial", ["history-too-large: 1"])
    assert [plan.depth for plan in small.plans] == [None, 50]
    assert all(plan.haves == () for plan in small.plans)
    assert world.rows(scanned_heads) == []
    assert len(world.rows(incidents)) == 1


def test_a_forced_push_over_the_bound_is_read_as_well(
    world: World, repository, ours, git_server
) -> None:
    repository.commit({"big": secrets.token_hex(300_000)})
    for number in range(55):
        repository.commit({"big": str(number)})
    head = repository.commit({"k": ours()})
    repository.push()
    small = ShyFetcher(ConnectGuard([git_server.address]), max_bytes=100_000)
    world.push("acme/app", "1" * 40, head, forced=True)
    replace(world.scanner, fetcher=small).run_batch()
    (scan,) = world.rows(scans)
    assert scan["partial"] == ["orphaned-commits-gone: 1", "history-too-large: 1"]
    assert len(world.rows(incidents)) == 1


def test_have_is_said_only_of_heads_that_were_read_whole(world: World, repository) -> None:
    a = repository.commit({"a": "a"})
    repository.push()
    world.push("acme/app", "1" * 40, a)
    world.scanner.run_batch()
    b = repository.commit({"b": "b"})
    c = repository.commit({"c": "c"})
    repository.push()
    world.push("acme/app", b, c)  # A→B was lost
    world.scanner.run_batch()
    assert [(plan.wants, plan.haves) for plan in world.fetcher.plans] == [((a,), ()), ((c,), (a,))]


def test_another_ruleset_reads_everything_again(world: World, repository, ruleset) -> None:
    a = repository.commit({"a": "a"})
    repository.push()
    for patterns in (ruleset.patterns, ruleset.patterns[1:]):
        matcher = Matcher(replace(ruleset, patterns=patterns))
        world.push("acme/app", ZEROS, a)
        replace(world.scanner, matcher=matcher).run_batch()
    assert [plan.haves for plan in world.fetcher.plans] == [(), ()]
    assert len(world.rows(scanned_heads)) == 2


def test_names_of_refs_leak_too(world: World, repository, ours) -> None:
    watched, pushed = ours(), ours()
    head = repository.commit({"a": "a"})
    repository.push(f"HEAD:refs/heads/{watched}")
    world.push("acme/app", ZEROS, head, ref=f"refs/heads/{pushed}")
    with world.engine.begin() as connection:
        (row,) = connection.execute(select(scans)).mappings()
        connection.execute(
            scans.insert().values(
                id=secrets.token_hex(12), source="watch", repository_id=row["repository_id"],
                received_at=0, available_at=0, state=leases.PENDING, partial=[],
            )
        )  # fmt: skip
    world.scanner.run_batch()
    found = world.rows(sightings)
    assert {(row["object_kind"], row["object_id"]) for row in found} == {("ref", head)}
    assert len({row["incident_id"] for row in found}) == 2
    stored = str(world.rows(scans)) + str(found)
    assert watched not in stored
    assert pushed not in stored
    assert {row["sealed"] for row in world.rows(scans)} == {None}
