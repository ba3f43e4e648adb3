"""The first use case, with a store that can be told to fail: what may travel, what must wait."""

from __future__ import annotations

import secrets
import socket
from dataclasses import replace
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select

from scanner.db import leases
from scanner.db.schema import incidents, scanned_heads, scans, sightings
from scanner.db.seals import Sealer
from scanner.errors import (
    FetchTooSlowError,
    InspectionTooLargeError,
    NotServedError,
    ObjectNotFoundError,
)
from scanner.git.inline import InlineInspector
from scanner.guard import ConnectGuard
from scanner.keyring import Key
from scanner.matcher.engine import Matcher
from scanner.model import FetchPlan, Inspection, Secret
from scanner.patterns.generate import generate
from scanner.ports import Pack
from tests.scans.world import (
    OURS,
    ZEROS,
    AskedStore,
    DyingInspector,
    ShyFetcher,
    SurprisingInspector,
    World,
)


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


def test_no_comment_keeps_a_token_from_its_answer(world: World, repository, ours) -> None:
    # Whoever leaks a token writes its line, too: what `patrol scan` heeds, the service never does.
    words = [
        "patrol:allow", "gitleaks:allow", "betterleaks:allow", "kingfisher:ignore",
        "pragma: allowlist secret", "pragma: allowlist nextline secret",
    ]  # fmt: skip
    tokens = [ours() for _ in words]
    lines = [f"# {word}\n{one} # {word}\n" for word, one in zip(words, tokens, strict=True)]
    head = repository.commit({"k": "".join(lines)})
    repository.push()
    world.push("acme/app", ZEROS, head)
    world.scanner.run_batch()
    assert {Secret(one.encode()) for one in tokens} <= set(world.store.asked)
    assert len(world.rows(incidents)) == len(words)


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


class SlowWhole(ShyFetcher):
    """A host that cannot send a whole history in time."""

    def fetch(self, plan: FetchPlan) -> Any:
        fetching = super().fetch(plan)
        if plan.depth is None:
            raise FetchTooSlowError("The fetch took longer than 120 seconds.")
        return fetching


class SlowReader(InlineInspector):
    """Has no time for more than a few objects."""

    def inspect(self, pack: Pack, *arguments: Any) -> Inspection:
        inspection = super().inspect(pack, *arguments)
        if inspection.objects > 170:
            raise InspectionTooLargeError("Reading the pack took longer than 60 seconds.")
        return inspection


@pytest.mark.parametrize("slow", ["to come", "to read"])
def test_a_history_that_is_too_slow_is_read_shallowly(
    world: World, repository, ours, git_server, slow: str
) -> None:
    """At once: every later push would lack as much."""
    for number in range(60):
        repository.commit({"big": str(number)})
    token = ours()
    head = repository.commit({"k": token})
    repository.push()
    world.push("acme/app", ZEROS, head)
    fetcher = ShyFetcher(ConnectGuard([git_server.address]))
    scanner = replace(world.scanner, fetcher=fetcher)
    if slow == "to come":
        fetcher = SlowWhole(ConnectGuard([git_server.address]))
        scanner = replace(world.scanner, fetcher=fetcher)
    else:
        scanner = replace(scanner, inspector=SlowReader(world.scanner.matcher))
    scanner.run_batch()
    (scan,) = world.rows(scans)
    assert (scan["state"], scan["partial"]) == ("partial", ["history-too-slow: 1"])
    assert [plan.depth for plan in fetcher.plans] == [None, 50]
    assert len(world.rows(incidents)) == 1
    assert world.rows(scanned_heads) == []


class QuickWebhook(ShyFetcher):
    """A host whose replicas do not know of a push for a while."""

    def __init__(self, *arguments: Any, errors: list[Exception]) -> None:
        super().__init__(*arguments)
        self.errors = errors

    def fetch(self, plan: FetchPlan) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return super().fetch(plan)


def test_a_push_that_the_host_does_not_serve_yet_is_asked_for_again(
    world: World, repository, ours, git_server
) -> None:
    token = ours()
    head = repository.commit({"k": token})
    repository.push()
    world.push("acme/app", ZEROS, head)
    errors = [ObjectNotFoundError("not our ref"), NotServedError("HTTP 404")]
    fetcher = QuickWebhook(ConnectGuard([git_server.address]), errors=errors)
    patient = replace(world.scanner.patience, max_retries=84)
    scanner = replace(world.scanner, fetcher=fetcher, patience=patient)
    for _ in range(3):
        scanner.run_batch()
        world.pass_time()
    assert [row["state"] for row in world.rows(scans)] == ["done"]
    assert len(world.rows(incidents)) == 1


def test_a_repository_that_is_gone_is_parked_within_hours(world: World, git_server) -> None:
    world.push("acme/never", ZEROS, "a" * 40)
    patient = replace(world.scanner.patience, max_retries=84)
    scanner = replace(world.scanner, patience=patient)
    rounds = 0
    while world.rows(scans)[0]["state"] == "pending":
        scanner.run_batch()
        world.pass_time()
        rounds += 1
    assert rounds == 12
    assert [row["state"] for row in world.rows(scans)] == ["parked"]


def test_another_store_is_asked_about_what_the_first_did_not_know(
    world: World, repository, git_server
) -> None:
    secret = generate(OURS)
    first = repository.commit({"k": secret.reveal().decode()})
    repository.push()
    world.push("acme/app", ZEROS, first)
    world.scanner.run_batch()
    assert world.rows(incidents) == []
    other = AskedStore()
    other.name = "another"
    other.issue(secret)
    second = repository.commit({"clean": "nothing"})
    repository.push()
    world.push("acme/app", first, second)
    judge = replace(world.scanner.judge, store=other)
    replace(world.scanner, judge=judge).run_batch()
    assert [row["store"] for row in world.rows(incidents)] == ["another"]


def test_a_push_is_read_though_the_key_of_its_name_is_gone(
    world: World, repository, ours, git_server
) -> None:
    """The name held a token, and nobody did the work before the day's key was destroyed."""
    named, token = ours(), ours()
    head = repository.commit({"k": token})
    repository.push()
    world.push("acme/app", ZEROS, head, ref=f"refs/heads/{named}")
    later = Sealer([Key("s2", Fernet.generate_key())])
    replace(world.scanner, sealer=later).run_batch()
    (scan,) = world.rows(scans)
    assert (scan["state"], scan["partial"]) == ("partial", ["sealed-names-gone: 1"])
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


def test_a_path_as_long_as_git_has_them_is_kept_in_part(world: World, repository, ours) -> None:
    """Four bytes a character: no index of a database takes them all."""
    token = ours()
    folders = "/".join(["\N{DANGO}" * 60] * 14)
    head = repository.commit({f"{folders}/k": token})
    repository.push()
    world.push("acme/app", ZEROS, head)
    assert world.scanner.run_batch()
    assert len(world.rows(incidents)) == 1
    (kept,) = world.rows(sightings)
    assert 1_900 < len(kept["path"].encode()) <= 2_000
