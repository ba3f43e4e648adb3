"""A token whose incident has ended is pushed again, and works: it is answered, once each time; what
a stale replica says is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from scanner.db import leases, policies
from scanner.db.leases import Patience
from scanner.db.schema import (
    audit_events,
    incidents,
    outbox,
    sealed_candidates,
)
from scanner.model import Secret, Validity
from scanner.patterns.generate import generate
from scanner.ports import StoreAbilities
from scanner.respond.run import Responder
from tests.scans.world import OURS, ZEROS, World

PATIENCE = Patience(60_000, 3, None)
HALF_HOUR, DAY = 1_800_000, 86_400_000


class Case:
    """One token, its leaks, and what became of it."""

    def __init__(self, world: World, repository) -> None:
        self.world = world
        self.secret = generate(OURS)
        self.token_id = world.store.issue(self.secret, pattern=OURS, mask="…abcd")
        self._repository = repository
        self._leaks = 0

    def leak(self) -> None:
        """The token is pushed once more, to another place."""
        self._leaks += 1
        text = f"{self._leaks} = {self.secret.reveal().decode()}\n"
        head = self._repository.commit({f"{self._leaks}.ini": text})
        self._repository.push()
        self.world.push("acme/app", ZEROS, head)
        assert self.world.scanner.run_batch()

    def respond(self) -> None:
        world, store = self.world, self.world.store
        sealer = world.rechecker.judge.sealer
        Responder(world.engine, {store.name: store}, sealer, PATIENCE).run_batch()

    def clock(self, ms: int) -> None:
        """So much time passes."""
        with self.world.engine.begin() as connection:
            for table, names in (
                (incidents, ("opened_at", "intent_at", "revoked_at", "available_at")),
                (sealed_candidates, ("available_at",)),
            ):
                moved = {name: table.c[name] - ms for name in names}
                connection.execute(update(table).values(**moved))

    def recheck(self) -> bool:
        return self.world.rechecker.run_batch()

    @property
    def incident(self):
        (row,) = self.world.rows(incidents)
        return row

    @property
    def phase(self) -> str:
        return self.incident["phase"]

    @property
    def mails(self) -> list[str]:
        rows = [row for row in self.world.rows(outbox) if row["kind"] == "leak"]
        rows.sort(key=lambda row: len(row["dedupe"]))
        return [row["notice"]["context"]["outcome"] for row in rows]

    def works(self) -> bool:
        (lookup,) = self.world.store.find([self.secret])
        return lookup.validity is Validity.ACTIVE

    def count(self, action: str) -> int:
        return [row["action"] for row in self.world.rows(audit_events)].count(action)

    def says(self, validity: Validity | None) -> None:
        self.world.store.says = {} if validity is None else {self.secret: validity}


@pytest.fixture
def case(world: World, repository) -> Case:
    return Case(world, repository)


def test_an_expired_token_that_works_again_is_revoked(case: Case) -> None:
    case.says(Validity.EXPIRED)
    case.leak()
    case.respond()
    assert (case.phase, case.mails) == ("not_needed", [])
    case.says(None)
    case.leak()
    assert (case.phase, case.incident["validity"]) == ("open", "active")
    case.respond()
    assert (case.phase, case.mails, case.works()) == ("revoked", ["revoked"], False)
    assert case.count("leak.found") == case.count("leak.reopened") == 1
    assert case.incident["sightings"] == 2
    case.leak()
    case.respond()
    assert (case.phase, case.mails) == ("revoked", ["revoked"])


def test_it_is_answered_though_nobody_has_decided_yet(case: Case) -> None:
    case.says(Validity.EXPIRED)
    case.leak()
    case.says(None)
    case.leak()
    case.respond()
    assert (case.phase, case.mails) == ("revoked", ["revoked"])


def test_what_could_not_be_judged_and_proves_to_work_is_revoked(case: Case) -> None:
    case.says(Validity.INACTIVE)
    case.leak()
    case.respond()
    assert (case.phase, case.mails) == ("still_active", ["still_active"])
    case.says(None)
    case.leak()
    case.respond()
    assert (case.phase, case.mails) == ("revoked", ["still_active", "revoked"])
    assert not case.works()


def set_policy(world: World, *, enabled: bool) -> None:
    with world.engine.begin() as connection:
        acme = policies.Organisation(world.store.name, "Acme", "Acme")
        policies.change(connection, acme, enabled=enabled, actor="admin")


def test_what_was_left_to_its_owner_is_revoked_once_the_policy_says_so(case: Case) -> None:
    set_policy(case.world, enabled=False)
    case.leak()
    case.respond()
    for _ in range(2):  # under the same policy nothing changes
        case.leak()
        case.respond()
        assert (case.phase, case.mails) == ("still_active", ["still_active"])
    set_policy(case.world, enabled=True)
    case.leak()
    case.respond()
    assert (case.phase, case.mails) == ("revoked", ["still_active", "revoked"])


@pytest.mark.parametrize("ours", [True, False])
def test_a_revoked_token_that_the_issuer_lets_work_again(case: Case, ours: bool) -> None:
    case.leak()
    if not ours:
        case.world.store.revoke_by_hand(case.token_id, "ada")
    case.respond()
    end = "revoked" if ours else "already_revoked"
    assert (case.phase, case.mails) == (end, [end])
    case.clock(DAY)
    case.world.store.restore(case.token_id)
    case.leak()
    case.respond()
    assert (case.phase, case.mails, case.works()) == ("revoked", [end, "revoked"], False)
    assert case.count("token.revoked") == 1 + ours
    assert case.count("leak.found") == 1


@pytest.mark.parametrize("keeps_cause", [True, False])
def test_a_stale_replica_makes_no_second_mail(case: Case, keeps_cause: bool) -> None:
    """It says that the token works, after we have seen that it is revoked."""
    store = case.world.store
    store.abilities = replace(store.abilities, keeps_cause=keeps_cause, is_replicated=True)
    case.leak()
    case.respond()
    case.says(Validity.ACTIVE)
    for _ in range(3):
        case.leak()
        case.clock(60_000)
        case.respond()
        case.recheck()
    case.says(None)  # it has heard of it by now
    case.clock(HALF_HOUR)
    case.recheck()
    case.respond()
    assert (case.phase, case.mails) == ("revoked", ["revoked"])
    assert case.incident["sightings"] == 4
    assert case.count("leak.reopened") == 0
    assert {row["sealed"] for row in case.world.rows(sealed_candidates)} == {None}


def test_a_token_that_works_again_soon_after_its_end_is_answered_when_doubt_ends(
    case: Case,
) -> None:
    """Nobody pushes it again: it waits, sealed, for a second answer."""
    case.leak()
    case.respond()
    case.world.store.restore(case.token_id)
    case.leak()
    case.respond()
    assert (case.phase, case.mails) == ("revoked", ["revoked"])
    assert not case.recheck()
    case.clock(HALF_HOUR)
    assert case.recheck()
    case.respond()
    assert (case.phase, case.mails, case.works()) == ("revoked", ["revoked"] * 2, False)
    assert case.incident["sightings"] == 2
    assert {row["sealed"] for row in case.world.rows(sealed_candidates)} == {None}


def test_a_doubt_that_ends_in_another_end_is_a_doubt_again(case: Case) -> None:
    """Meanwhile it was revoked once more, so what the replica says is as doubtful as before."""
    case.leak()
    case.respond()
    case.says(Validity.ACTIVE)
    case.leak()
    case.clock(HALF_HOUR)
    with case.world.engine.begin() as connection:  # it ended anew just now
        connection.execute(update(incidents).values(revoked_at=incidents.c.revoked_at + HALF_HOUR))
    assert case.recheck()
    assert not case.recheck()
    (waiting,) = [row for row in case.world.rows(sealed_candidates) if row["sealed"] is not None]
    assert (waiting["state"], waiting["cause"]) == ("pending", "unconfirmed")
    case.says(None)
    case.clock(HALF_HOUR)
    assert case.recheck()
    assert (case.phase, case.mails) == ("revoked", ["revoked"])
    assert {row["sealed"] for row in case.world.rows(sealed_candidates)} == {None}


def test_a_replica_that_never_learns_makes_no_mails_and_is_believed_less_each_time(
    case: Case,
) -> None:
    case.leak()
    case.respond()
    case.says(Validity.ACTIVE)
    for _ in range(48):  # a day of pushes
        case.leak()
        case.clock(HALF_HOUR)
        case.recheck()
        case.respond()
    assert case.mails == ["revoked"]  # nothing was to be revoked, so there is nothing to tell
    assert 1 <= case.count("leak.reopened") <= 4
    assert case.count("token.revoked") == 1


def test_what_was_revoked_before_we_saw_it_is_doubted_as_well(case: Case) -> None:
    case.world.store.revoke_by_hand(case.token_id, "ada")
    case.leak()
    case.respond()
    case.says(Validity.ACTIVE)
    case.leak()
    case.respond()
    assert (case.phase, case.mails) == ("not_needed", [])
    case.says(None)
    case.clock(HALF_HOUR)
    case.recheck()
    assert (case.phase, case.mails) == ("not_needed", [])


BY_SECRET = StoreAbilities(tells_reason=False, revokes_by="secret", keeps_cause=False, batch=1)


def test_a_response_that_stopped_for_want_of_the_token_goes_on_when_it_is_held_again(
    case: Case,
) -> None:
    case.world.store.abilities = BY_SECRET
    case.leak()
    with case.world.engine.begin() as connection:
        lost = update(sealed_candidates).values(sealed=None, state="expired")
        connection.execute(lost)
    case.respond()
    assert (case.phase, case.incident["state"]) == ("revoking", leases.PARKED)
    case.leak()
    assert case.incident["state"] == leases.PENDING
    case.respond()
    assert (case.phase, case.mails, case.works()) == ("revoked", ["revoked"], False)
    assert {row["sealed"] for row in case.world.rows(sealed_candidates)} == {None}


def test_a_response_that_may_have_killed_its_workers_stays_parked(case: Case) -> None:
    case.leak()
    with case.world.engine.begin() as connection:
        connection.execute(update(incidents).values(attempts=5, state=leases.PARKED))
    case.leak()
    assert case.incident["state"] == leases.PARKED


def test_other_tokens_are_left_alone(case: Case) -> None:
    other = Secret(generate(OURS).reveal())
    case.world.store.issue(other, pattern=OURS, mask="…wxyz")
    case.says(Validity.EXPIRED)
    case.leak()
    case.respond()
    case.says(None)
    case.secret, mine = other, case.secret
    case.leak()
    phases = {row["token_id"]: row["phase"] for row in case.world.rows(incidents)}
    assert phases[case.token_id] == "not_needed"
    case.secret = mine
