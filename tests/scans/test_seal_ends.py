"""A token that is held for its revocation, and a store that stays away past its seal: the operator
hears of it while there is time, by the incident; it is not taken for one that was never proved."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import update

from scanner.db import alarms, leases, policies, sealed
from scanner.db.engine import reader
from scanner.db.leases import Patience
from scanner.db.schema import alarm_turns, incidents, outbox, sealed_candidates
from scanner.db.seals import Sealer
from scanner.keyring import Key
from scanner.model import Secret, Validity
from scanner.ports import StoreAbilities
from scanner.respond.run import Responder
from tests.scans.world import DAY_MS, ZEROS, World

PATIENCE = Patience(60_000, 3, None)
BY_SECRET = StoreAbilities(tells_reason=False, revokes_by="secret", keeps_cause=False, batch=1)


class Case:
    """One leaked token of a store that revokes by the token itself; it may wait for a day."""

    def __init__(self, world: World, repository, ours) -> None:
        self.world = world
        world.store.abilities = BY_SECRET
        self.secret = Secret(ours().encode())
        self.sealer = world.rechecker.judge.sealer
        head = repository.commit({"x.ini": self.secret.reveal()})
        repository.push()
        world.push("acme/app", ZEROS, head)
        assert world.scanner.run_batch()

    def respond(self) -> None:
        store = self.world.store
        with self.world.engine.begin() as connection:
            connection.execute(
                update(incidents).where(incidents.c.state == leases.PENDING).values(available_at=0)
            )
        Responder(self.world.engine, {store.name: store}, self.sealer, PATIENCE).run_batch()

    def clock(self, ms: int) -> None:
        with self.world.engine.begin() as connection:
            for table, names in (
                (sealed_candidates, ("sealed_at", "expires_at")), (alarm_turns, ("due_at",)),
            ):  # fmt: skip
                moved = {name: table.c[name] - ms for name in names}
                connection.execute(update(table).values(**moved))

    def warn(self) -> None:
        with self.world.engine.begin() as connection:
            alarms.warn_of_seals(connection)

    def lose_the_key(self) -> None:
        """As its day's end does."""
        self.sealer = Sealer([Key("s2", Fernet.generate_key())])
        rechecker = self.world.rechecker
        judge = replace(rechecker.judge, sealer=self.sealer)
        self.world.rechecker = replace(rechecker, judge=judge)

    @property
    def incident(self):
        (row,) = self.world.rows(incidents)
        return row

    @property
    def held(self):
        (row,) = self.world.rows(sealed_candidates)
        return row

    def told(self) -> list[dict[str, str]]:
        """What the operator would read by now, but for what is held up."""
        rows = self.world.rows(outbox)
        with reader(self.world.engine).connect() as connection:
            return [
                alarms.as_of_now(connection, row["notice"], row["notice"]["context"])
                for row in rows
                if row["kind"] == "alarm" and row["notice"].get("topic") != "held-up"
            ]


@pytest.fixture
def case(world: World, repository, ours) -> Case:
    return Case(world, repository, ours)


def test_it_is_told_by_its_incident_while_there_is_time(case: Case) -> None:
    case.world.store.is_available = False
    case.respond()
    case.clock(DAY_MS * 7 // 10)
    case.warn()
    assert case.told() == []
    case.clock(DAY_MS // 10)
    for _ in range(3):
        case.warn()
    (mail,) = case.told()
    assert mail["title"] == "A leaked token is still active, and will not be held for long"
    assert case.incident["id"] in mail["explanation"]
    assert "still active" in mail["explanation"]
    assert "proved" not in str(mail)
    assert "gone on by itself" not in mail["explanation"]
    case.clock(DAY_MS)
    case.warn()
    assert len(case.told()) == 2  # once a day


def test_it_stays_while_its_key_does_and_is_revoked_in_the_end(case: Case) -> None:
    case.world.store.is_available = False
    case.respond()
    case.clock(2 * DAY_MS)
    assert not case.world.rechecker.run_batch()
    with case.world.engine.begin() as connection:
        assert not sealed.any_expired(connection, case.sealer.key_ids)  # nobody wakes for it
    assert case.held["sealed"] is not None
    case.world.store.is_available = True
    case.respond()
    assert (case.incident["phase"], case.held["sealed"]) == ("revoked", None)
    (lookup,) = case.world.store.find([case.secret])
    assert lookup.validity is not Validity.ACTIVE
    case.warn()
    assert case.told() == []


def test_when_its_key_is_gone_the_response_stops_and_says_what_is_left_to_do(case: Case) -> None:
    case.world.store.is_available = False
    case.respond()
    case.clock(2 * DAY_MS)
    case.lose_the_key()
    assert case.world.rechecker.run_batch()
    assert not case.world.rechecker.run_batch()
    assert (case.held["state"], case.held["sealed"]) == ("expired", None)
    assert "leak.unproved" not in case.world.actions()
    assert case.world.actions().count("seal.expired") == 1
    case.respond()
    assert (case.incident["phase"], case.incident["state"]) == ("revoking", leases.PARKED)
    (mail,) = case.told()
    assert mail["title"] == "The response to a leaked token has stopped"
    assert case.incident["id"] in mail["explanation"]
    assert "still active: revoke it there by hand" in mail["explanation"]


def test_what_is_left_to_its_owner_is_not_kept_any_longer(case: Case) -> None:
    with case.world.engine.begin() as connection:
        acme = policies.Organisation(case.world.store.name, "Acme", "Acme")
        policies.change(connection, acme, enabled=False, actor="admin")
    case.respond()
    assert case.incident["phase"] == "still_active"
    case.clock(DAY_MS - 1_000)
    case.warn()
    case.clock(2_000)
    assert case.world.rechecker.run_batch()
    assert (case.held["state"], case.held["sealed"]) == ("expired", None)
    assert case.told() == []
    assert "leak.unproved" not in case.world.actions()
