"""Leaks that were seen before their token was known, and tokens that come back to life (law 7)."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import update

from scanner.db.late import prune_old
from scanner.db.leases import Patience
from scanner.db.schema import heartbeats, incidents, sightings, unknown_digests
from scanner.db.seals import Sealer
from scanner.keyring import Key, fernet_key
from scanner.model import Secret, Validity
from scanner.respond.run import Responder
from tests.tokens.conftest import seen

ACTOR = "test"
SEALER = Sealer([Key("s1", fernet_key().encode())])
K1, K2 = (Key(name, name.encode() * 20) for name in ("k1", "k2"))
PATIENCE = Patience(lease_ms=60_000, max_attempts=3, max_retries=None)
FUTURE = datetime.now(UTC) + timedelta(days=30)


def respond(desk) -> None:
    responder = Responder(
        engine=desk.engine,
        stores={desk.store.name: desk.store},
        sealer=SEALER,
        patience=PATIENCE,
    )
    while responder.run_batch():
        pass


def the_incident(desk) -> dict[str, Any]:
    (incident,) = desk.incidents()
    return incident


def test_a_token_that_is_created_later_meets_its_leak(desk, new_secret) -> None:
    secret, other = new_secret(), new_secret()
    scan_id = desk.leak(secret, other)
    desk.leak(secret)
    assert desk.incidents() == []
    _, made = desk.create(secret)
    incident = the_incident(desk)
    assert (incident["token_id"], incident["validity"], incident["phase"]) == (
        made["id"], "active", "open",
    )  # fmt: skip
    assert (incident["sightings"], incident["correlation_id"]) == (2, scan_id)
    joined = [row for row in desk.sightings() if row["incident_id"] == incident["id"]]
    assert [row["validity"] for row in joined] == ["active", "active"]
    assert [row["incident_id"] for row in desk.sightings()].count(None) == 1
    assert len(desk.events("leak.found")) == 1
    respond(desk)
    assert desk.validity(secret) is Validity.REVOKED


def test_a_leak_found_again_after_it_was_joined_is_the_same_incident(desk, new_secret) -> None:
    secret = new_secret()
    desk.leak(secret)
    desk.create(secret)
    desk.leak(secret)
    assert the_incident(desk)["sightings"] == 2
    assert len(desk.events("leak.seen_again")) == 1


def test_the_successor_of_a_rotation_meets_its_leak(desk, new_secret) -> None:
    _, old = desk.create()
    secret = new_secret()
    desk.leak(secret)
    new = desk.tokens.rotate(old["id"], secret, mask="m", actor=ACTOR)
    assert the_incident(desk)["token_id"] == new["id"]


def test_it_is_met_under_a_newer_pepper_too(desk, new_secret) -> None:
    secret = new_secret()
    desk.leak(secret)
    desk.ring.keys = (K2, K1)
    desk.create(secret)
    assert the_incident(desk)["sightings"] == 1


def test_a_place_that_was_seen_before_anybody_was_asked_is_met_too(desk, new_secret) -> None:
    """The pattern was bound, and the fingerprint's key turned, between two scans of one place."""
    secret = new_secret()
    place = seen(secret)
    desk.find([place], replace(desk.judge(), bound=frozenset()))
    assert desk.rows(unknown_digests) == []
    newer = Key("f2", b"g" * 32)
    desk.find([place], replace(desk.judge(), keys=(newer, *desk.judge().keys)))
    assert len(desk.sightings()) == 1
    desk.create(secret)
    assert the_incident(desk)["sightings"] == 1


def test_a_token_created_while_its_leak_is_recorded_is_not_missed(desk, new_secret) -> None:
    """The store said "never issued", then the token was issued, then the scan wrote its verdict."""
    secret = new_secret()
    desk.leak(secret, asked=lambda: desk.create(secret))
    assert the_incident(desk)["sightings"] == 1
    assert desk.rows(unknown_digests) == []


def test_whoever_commits_second_sees_the_other(desk, new_secret) -> None:
    """Scans and creations of the same tokens, at the same time, many times."""
    for _ in range(12):
        secret = new_secret()
        gate = threading.Barrier(2)

        def leak(secret: Secret = secret, gate: threading.Barrier = gate) -> None:
            desk.leak(secret, asked=lambda: gate.wait(30) and None)

        def create(secret: Secret = secret, gate: threading.Barrier = gate) -> None:
            gate.wait(30)
            desk.create(secret)

        threads = [threading.Thread(target=leak), threading.Thread(target=create)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(desk.incidents()) == 12
    assert [row["incident_id"] for row in desk.sightings()].count(None) == 0


def test_an_expired_token_that_is_prolonged_has_its_leak_answered(desk) -> None:
    secret, made = desk.create()
    desk.end(made["id"])
    desk.leak(secret)
    respond(desk)
    assert the_incident(desk)["phase"] == "not_needed"
    desk.tokens.update(made["id"], {"name": "still expired"}, actor=ACTOR)
    assert the_incident(desk)["phase"] == "not_needed"
    desk.tokens.update(made["id"], {"valid_to": FUTURE}, actor="cli:ada")
    reopened = the_incident(desk)
    assert (reopened["phase"], reopened["validity"], reopened["state"]) == (
        "open", "active", "pending",
    )  # fmt: skip
    (event,) = desk.events("leak.reopened")
    assert (event["actor"], event["incident_id"]) == ("cli:ada", reopened["id"])
    respond(desk)
    assert the_incident(desk)["phase"] == "revoked"
    assert desk.validity(secret) is Validity.REVOKED


def test_one_of_a_disabled_owner_is_revoked_when_it_is_prolonged(desk) -> None:
    secret, made = desk.create()
    desk.end(made["id"])
    desk.leak(secret)
    respond(desk)
    desk.accounts.enable_owner(desk.ada["id"], enabled=False, actor=ACTOR)
    desk.tokens.update(made["id"], {"valid_to": None}, actor=ACTOR)
    assert the_incident(desk)["validity"] == "owner_disabled"
    respond(desk)
    assert desk.validity(secret) is Validity.REVOKED


def test_a_disabled_owners_leak_is_over_before_he_comes_back(desk) -> None:
    secret, _ = desk.create()
    desk.accounts.enable_owner(desk.ada["id"], enabled=False, actor=ACTOR)
    desk.leak(secret)
    respond(desk)
    desk.accounts.enable_owner(desk.ada["id"], enabled=True, actor=ACTOR)
    assert desk.validity(secret) is Validity.REVOKED


def test_what_was_revoked_stays_closed(desk) -> None:
    secret, made = desk.create()
    desk.tokens.revoke(made["id"], actor=ACTOR)
    desk.leak(secret)
    respond(desk)
    assert the_incident(desk)["phase"] == "not_needed"
    assert desk.events("leak.reopened") == []


def test_a_worker_that_holds_the_incident_decides_on_what_is_so_now(desk) -> None:
    """It was claimed as expired; the token is prolonged before the worker writes its intent."""
    secret, made = desk.create()
    desk.end(made["id"])
    desk.leak(secret)
    with desk.engine.begin() as connection:
        connection.execute(update(incidents).values(state="running", lease_until=1 << 60, fence=1))
    desk.tokens.update(made["id"], {"valid_to": FUTURE}, actor=ACTOR)
    incident = the_incident(desk)
    assert (incident["state"], incident["fence"], incident["validity"]) == ("pending", 2, "active")


def test_a_token_prolonged_while_its_leak_is_recorded_is_not_missed(desk) -> None:
    secret, made = desk.create()
    desk.end(made["id"])

    def prolong() -> None:
        desk.tokens.update(made["id"], {"valid_to": FUTURE}, actor=ACTOR)

    desk.leak(secret, asked=prolong)
    assert the_incident(desk)["validity"] == "active"
    respond(desk)
    assert desk.validity(secret) is Validity.REVOKED


def test_old_unknown_sightings_are_forgotten_and_counted(desk, new_secret) -> None:
    known, old, young = (new_secret() for _ in range(3))
    desk.leak(known, old)
    desk.create(known)
    with desk.engine.begin() as connection:
        connection.execute(update(sightings).values(seen_at=1))
    desk.leak(young)
    assert prune_old(desk.engine, 90) == 1
    kept = {row["id"]: row["incident_id"] for row in desk.sightings()}
    assert len(kept) == 2
    assert set(kept.values()) == {None, the_incident(desk)["id"]}
    assert {row["sighting_id"] for row in desk.rows(unknown_digests)} == {
        row for row, incident in kept.items() if incident is None
    }
    (event,) = desk.events("sightings.pruned")
    assert event["data"] == {"sightings": 1, "days": 90}
    desk.create(old)
    assert len(desk.incidents()) == 1
    desk.create(young)
    assert len(desk.incidents()) == 2


def test_pruning_is_done_once_an_hour(desk, new_secret) -> None:
    assert prune_old(desk.engine, 90) == 0
    desk.leak(new_secret())
    with desk.engine.begin() as connection:
        connection.execute(update(sightings).values(seen_at=1))
    assert prune_old(desk.engine, 90) == 0
    with desk.engine.begin() as connection:
        connection.execute(update(heartbeats).values(at=heartbeats.c.at - 3_600_000))
    assert prune_old(desk.engine, 90) == 1
