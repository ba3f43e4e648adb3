"""Tokens whose store gave no answer: sealed, asked about again, wiped with the verdict."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select, update

from scanner.db import freezes, leases
from scanner.db.schema import (
    audit_events,
    incidents,
    outbox,
    scanned_heads,
    scans,
    sealed_candidates,
    sightings,
)
from scanner.db.seals import Sealer
from scanner.judge import RECHECK_MS
from scanner.keyring import Key
from scanner.model import Secret, Validity
from scanner.patterns.generate import generate
from scanner.ports import StoreAbilities
from tests.scans.world import OURS, ZEROS, World

REPLICATED = StoreAbilities(
    tells_reason=True, revokes_by="id", keeps_cause=True, batch=100, is_replicated=True
)
BY_SECRET = StoreAbilities(tells_reason=False, revokes_by="secret", keeps_cause=False, batch=1)


def leak(world: World, repository, text: str) -> str:
    head = repository.commit({"deploy/key.ini": f"[x]\n{text}\n"})
    repository.push()
    world.push("acme/app", ZEROS, head)
    assert world.scanner.run_batch()
    return head


@pytest.fixture
def away(world: World, repository, ours) -> str:
    """A token that leaked while the store was away; its repository is gone now."""
    token = ours()
    world.store.is_available = False
    leak(world, repository, f"{token} {token}")
    shutil.rmtree(repository.bare)
    return token


def at_rest(world: World) -> str:
    return json.dumps([dict(row) for row in world.rows(sealed_candidates)], default=repr)


def test_what_the_store_could_not_answer_waits_sealed(world: World, away: str) -> None:
    (scan,) = world.rows(scans)
    assert (scan["state"], scan["retries"]) == ("done", 0)
    (waiting,) = world.rows(sealed_candidates)  # one token at two places
    assert (waiting["cause"], waiting["state"]) == ("store_unavailable", "pending")
    assert waiting["seal_key"] == "s1"
    assert waiting["expires_at"] - waiting["sealed_at"] == 86_400_000
    assert [place["place"]["path"] for place in waiting["places"]] == ["deploy/key.ini"] * 2
    assert away[:12] not in at_rest(world)
    assert away.encode().hex()[:24] not in at_rest(world)
    assert world.rows(sightings) == world.rows(incidents) == []
    # The tokens are safe, so the head counts as read.
    assert len(world.rows(scanned_heads)) == 1


def test_it_meets_its_verdict_though_the_repository_is_gone(world: World, away: str) -> None:
    for _ in range(5):
        assert world.rechecker.run_batch()
        assert not world.rechecker.run_batch()  # a store that is away is left alone for a while
        world.pass_time()
    (waiting,) = world.rows(sealed_candidates)
    assert (waiting["state"], waiting["attempts"], waiting["retries"]) == ("pending", 0, 5)
    world.store.is_available = True
    assert world.rechecker.run_batch()
    (incident,) = world.rows(incidents)
    assert (incident["phase"], incident["sightings"]) == ("open", 2)
    assert {row["path"] for row in world.rows(sightings)} == {"deploy/key.ini"}
    assert {row["commit"] for row in world.rows(sightings)} != {None}
    (waiting,) = world.rows(sealed_candidates)
    assert (waiting["state"], waiting["sealed"]) == ("done", None)
    assert not world.rechecker.run_batch()
    assert Secret(away.encode()) in world.store.asked


def test_of_many_that_wait_a_store_that_is_away_is_asked_about_few(
    world: World, repository, ours
) -> None:
    tokens = [ours() for _ in range(150)]
    world.store.is_available = False
    leak(world, repository, "\n".join(tokens))
    world.store.asked.clear()
    while world.rechecker.run_batch():
        pass
    # One batch with its control, and whether it answers for what nobody issued.
    assert len(world.store.asked) <= 67
    world.pass_time()
    world.store.is_available = True
    while world.rechecker.run_batch():
        pass
    assert len(world.rows(incidents)) == 150


@pytest.mark.parametrize("count", [1, 3])
def test_tokens_that_a_store_fails_over_keep_nobody_waiting(
    world: World, repository, ours, count: int
) -> None:
    """A batch with one of them fails as a whole; its neighbours have their verdict all the same."""
    tokens = [ours() for _ in range(20)]
    world.store.is_available = False
    leak(world, repository, "\n".join(tokens))
    world.store.is_available = True
    world.store.poison = {Secret(token.encode()) for token in tokens[:count]}
    assert world.rechecker.run_batch()
    while world.rechecker.run_batch():
        pass
    assert len(world.rows(incidents)) == 20 - count
    left = [row for row in world.rows(sealed_candidates) if row["sealed"] is not None]
    assert len(left) == count
    assert {row["error"] for row in left} == {"the store gave no answer about this token"}
    for row in left:  # each waits by itself, longer each time
        assert row["retries"] > 0
        assert row["available_at"] > row["sealed_at"]
    world.store.poison = set()
    world.pass_time()
    assert world.rechecker.run_batch()
    assert len(world.rows(incidents)) == 20


def test_a_store_that_goes_away_while_it_is_asked_by_halves(world: World, repository, ours) -> None:
    tokens = [ours() for _ in range(20)]
    world.store.is_available = False
    leak(world, repository, "\n".join(tokens))
    world.store.is_available = True
    world.store.poison = {Secret(token.encode()) for token in tokens}  # it answers for none
    asked = len(world.store.batches)
    assert world.rechecker.run_batch()
    assert len(world.store.batches) - asked <= 2 + 16  # it is not asked without end
    assert world.rows(incidents) == []
    world.store.poison = set()
    world.pass_time()
    while world.rechecker.run_batch():
        pass
    assert len(world.rows(incidents)) == 20


def test_a_store_that_lies_is_frozen_and_its_tokens_wait(world: World, repository, ours) -> None:
    world.store.claims = Validity.ACTIVE
    leak(world, repository, ours())
    assert world.rows(incidents) == []
    assert world.actions() == ["store.frozen"]
    (alarm,) = world.rows(outbox)
    assert (alarm["kind"], alarm["notice"]["to"]) == ("alarm", None)  # the operator
    world.store.asked.clear()
    world.rechecker.run_batch()
    world.push("acme/app", ZEROS, repository.commit({"more": ours()}))
    repository.push()
    world.scanner.run_batch()
    assert world.store.asked == []  # nothing is asked of a frozen store
    world.store.claims = None
    with world.engine.begin() as connection:
        assert freezes.release(connection, world.store.name, "admin")
    assert world.rechecker.run_batch()  # at once
    assert [row["phase"] for row in world.rows(incidents)] == ["open", "open"]


def test_a_seal_that_expires_alarms_and_is_wiped(world: World, away: str) -> None:
    with world.engine.begin() as connection:
        connection.execute(update(sealed_candidates).values(expires_at=1))
    assert world.rechecker.run_batch()
    assert not world.rechecker.run_batch()
    (waiting,) = world.rows(sealed_candidates)
    assert (waiting["state"], waiting["sealed"]) == ("expired", None)
    assert world.actions() == ["leak.unproved"]
    (alarm,) = world.rows(outbox)
    assert alarm["notice"]["context"]["title"].startswith("Leaked tokens could not be proved")
    kept = world.rows(sightings)
    assert {(row["validity"], row["incident_id"]) for row in kept} == {("store_unavailable", None)}
    # The fingerprint was made when the token was there: it is found again by it.
    assert {row["fingerprint"] for row in kept} == {waiting["fingerprint"]}


def test_a_worker_that_holds_what_expires_writes_no_verdict(world: World, away: str) -> None:
    world.store.is_available = True
    rechecker = world.rechecker

    class Slow(type(world.store)):  # type: ignore[misc]
        def find(self, secrets):
            with world.engine.begin() as connection:
                connection.execute(update(sealed_candidates).values(expires_at=1))
            rechecker.run_batch()  # another worker sees it expire meanwhile
            return world.store.find(secrets)

    slow = Slow()
    slow.name = world.store.name
    replace(rechecker, judge=replace(rechecker.judge, store=slow)).run_batch()
    assert world.rows(incidents) == []
    assert [row["state"] for row in world.rows(sealed_candidates)] == ["expired"]


def test_a_seal_whose_key_is_gone_is_parked_and_told(world: World, away: str) -> None:
    other = Sealer([Key("s2", Fernet.generate_key())])
    rechecker = replace(world.rechecker, judge=replace(world.rechecker.judge, sealer=other))
    assert rechecker.run_batch()
    (waiting,) = world.rows(sealed_candidates)
    assert waiting["state"] == leases.PARKED
    assert "key is gone" in waiting["error"]
    assert world.actions() == ["response.parked"]
    assert len(world.rows(outbox)) == 1
    # With the key again it goes on.
    with world.engine.begin() as connection:
        leases.retry_parked(connection, sealed_candidates)
    world.store.is_available = True
    assert world.rechecker.run_batch()
    assert len(world.rows(incidents)) == 1


def test_a_fault_with_one_leaves_its_neighbours_alone(world: World, repository, ours) -> None:
    tokens = [ours() for _ in range(3)]
    world.store.is_available = False
    leak(world, repository, "\n".join(tokens))
    with world.engine.begin() as connection:
        row = connection.execute(select(sealed_candidates).limit(1)).mappings().one()
        (place,) = row["places"]
        broken = {"candidate": place["candidate"], "place": {**place["place"], "line": None}}
        connection.execute(
            update(sealed_candidates)
            .where(sealed_candidates.c.id == row["id"])
            .values(places=[broken])
        )
    world.store.is_available = True
    assert world.rechecker.run_batch()
    assert len(world.rows(incidents)) == 2
    (left,) = [row for row in world.rows(sealed_candidates) if row["state"] != "done"]
    assert (left["state"], left["sealed"] is None) == ("pending", False)
    assert "IntegrityError" in left["error"]


def test_a_token_that_the_store_hears_of_late_meets_its_leak(world: World, repository) -> None:
    secret = generate(OURS)
    world.store.abilities = REPLICATED
    leak(world, repository, secret.reveal().decode())
    (unknown,) = world.rows(sightings)
    assert (unknown["validity"], unknown["incident_id"]) == ("never_issued", None)
    (waiting,) = world.rows(sealed_candidates)
    assert waiting["cause"] == "unconfirmed"
    assert waiting["available_at"] - waiting["sealed_at"] == RECHECK_MS[0] == 60_000
    assert not world.rechecker.run_batch()  # not yet
    world.pass_time()
    assert world.rechecker.run_batch()
    world.store.issue(secret, pattern=OURS, mask="…abcd")
    world.pass_time()
    assert world.rechecker.run_batch()
    (incident,) = world.rows(incidents)
    assert incident["sightings"] == 1
    (joined,) = world.rows(sightings)
    assert (joined["id"], joined["incident_id"]) == (unknown["id"], incident["id"])
    assert [row["sealed"] for row in world.rows(sealed_candidates)] == [None]


def test_a_token_nobody_knows_is_asked_about_for_a_day(world: World, repository) -> None:
    assert sum(RECHECK_MS) == 86_400_000
    world.store.abilities = REPLICATED
    leak(world, repository, generate(OURS).reveal().decode())
    for number in range(1, len(RECHECK_MS)):
        world.pass_time()
        assert world.rechecker.run_batch()
        (waiting,) = world.rows(sealed_candidates)
        assert (waiting["state"], waiting["asked"]) == ("pending", number)
        assert waiting["sealed"] is not None
    world.pass_time()
    assert world.rechecker.run_batch()
    (waiting,) = world.rows(sealed_candidates)
    assert (waiting["state"], waiting["sealed"]) == ("done", None)
    assert world.rows(incidents) == world.rows(audit_events) == []


def test_a_token_known_elsewhere_later_joins_by_its_fingerprint(
    world: World, repository, ours
) -> None:
    """Its first place is not read again: the second brings it along, though the key has changed."""
    secret = generate(OURS)
    leak(world, repository, secret.reveal().decode())
    world.store.issue(secret, pattern=OURS, mask="…abcd")
    judge = world.scanner.judge
    rotated = replace(judge, keys=[Key("f2", b"n" * 32), *judge.keys])
    head = repository.commit({"other": f"x = {secret.reveal().decode()}"})
    repository.push()
    world.push("acme/app", ZEROS, head)
    replace(world.scanner, judge=rotated).run_batch()
    (incident,) = world.rows(incidents)
    assert incident["sightings"] == 2
    assert {row["incident_id"] for row in world.rows(sightings)} == {incident["id"]}
    assert {row["fingerprint_key"] for row in world.rows(sightings)} == {"f1", "f2"}


@pytest.fixture
def by_secret(world: World) -> Callable[[], None]:
    world.store.abilities = BY_SECRET
    return lambda: None


@pytest.mark.usefixtures("by_secret")
def test_a_store_that_revokes_by_the_token_gets_it_held(world: World, repository, ours) -> None:
    token = ours()
    leak(world, repository, token)
    leak(world, repository, f"again: {token}")
    (incident,) = world.rows(incidents)
    (held,) = world.rows(sealed_candidates)  # once, however often it is seen
    assert (held["cause"], held["state"]) == ("revocation", "held")
    assert held["incident_id"] == incident["id"]
    assert not world.rechecker.run_batch()


@pytest.mark.usefixtures("by_secret")
def test_a_token_proved_late_is_held_for_its_revocation_too(
    world: World, repository, away: str
) -> None:
    world.store.is_available = True
    assert world.rechecker.run_batch()
    states = sorted((row["cause"], row["state"]) for row in world.rows(sealed_candidates))
    assert ("revocation", "held") in states
    assert sum(row["sealed"] is not None for row in world.rows(sealed_candidates)) == 1
