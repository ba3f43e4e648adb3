"""What stops a response half-way: stores that are away, workers that die, faults of our own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import update

from scanner.db import leases
from scanner.db.schema import audit_events, incidents, outbox
from scanner.errors import FinalError, StoreUnavailableError
from scanner.incident import Phase
from scanner.model import Lookup, Secret, Validity
from scanner.ports import TokenStore
from scanner.respond.decide import commit_intents
from scanner.respond.record import Act as Done
from scanner.respond.record import record_outcomes

ONCE = ["leak.found", "notice.delivered", "revocation.decided", "token.revoked"]
Act = Callable[[], bool]


class Around:
    """Stands before a store and may do something around each revocation."""

    def __init__(self, store: TokenStore, around: Callable[[str, Act], bool]) -> None:
        self.name = store.name
        self.abilities = store.abilities
        self._store = store
        self._around = around

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        return self._store.find(secrets)

    def revoke(self, token_id: str, incident_id: str, *, secret: Secret | None = None) -> bool:
        return self._around(
            token_id, lambda: self._store.revoke(token_id, incident_id, secret=secret)
        )


class Killed(BaseException):
    """The end of a process, as far as the code in it can tell."""


def before(error: BaseException) -> Callable[[str, Act], bool]:
    def around(_token_id: str, _act: Act) -> bool:
        raise error

    return around


def after(error: BaseException) -> Callable[[str, Act], bool]:
    def around(_token_id: str, act: Act) -> bool:
        act()
        raise error

    return around


def validity(desk, secret: Secret) -> Validity:
    return desk.store.find([secret])[0].validity


def test_a_store_that_is_away_is_waited_for_for_ever(desk) -> None:
    secret, _ = desk.issue()
    desk.leak(secret)
    desk.store.is_available = False
    for tries in range(1, 31):
        put_off = desk.now()
        assert desk.respond()
        incident = desk.incident()
        assert (incident["phase"], incident["state"]) == ("revoking", "pending")
        assert (incident["attempts"], incident["retries"]) == (0, tries)
        wait = min(1_000 * 2 ** (tries - 1), 3_600_000)
        assert put_off + wait <= incident["available_at"] <= desk.now() + wait
        assert not desk.respond()
        desk.let_time_pass()
    assert desk.incident()["error"] == "The token store memory did not answer."
    assert {row["kind"] for row in desk.notices()} == {"alarm"}
    desk.store.is_available = True
    assert desk.respond()
    desk.deliver()
    assert validity(desk, secret) is Validity.REVOKED
    # One mail to its owner, one to the operator, who was told that it waits.
    assert desk.actions() == sorted([*ONCE, "notice.delivered"])
    assert desk.incident()["error"] is None


@pytest.mark.parametrize("fault", [before, after])
def test_an_answer_that_is_lost_is_asked_for_again(desk, fault) -> None:
    secret, _ = desk.issue()
    desk.leak(secret)
    assert desk.respond(Around(desk.store, fault(StoreUnavailableError("no answer"))))
    assert desk.incident()["phase"] == "revoking"
    desk.let_time_pass()
    assert desk.respond()
    desk.deliver()
    assert desk.incident()["phase"] == "revoked"
    assert validity(desk, secret) is Validity.REVOKED
    assert desk.actions() == ONCE


@pytest.mark.parametrize("fault", [before, after])
def test_a_kill_around_the_act_changes_nothing_in_the_end(desk, fault) -> None:
    secret, _ = desk.issue()
    desk.leak(secret)
    with pytest.raises(Killed):
        desk.respond(Around(desk.store, fault(Killed())))
    incident = desk.incident()
    assert (incident["phase"], incident["state"], incident["attempts"]) == (
        "revoking",
        "running",
        1,
    )
    assert not desk.respond()  # its lease still holds
    desk.let_time_pass()
    assert desk.respond()
    desk.deliver()
    assert desk.incident()["phase"] == "revoked"
    assert validity(desk, secret) is Validity.REVOKED
    assert desk.actions() == ONCE


def test_a_paused_worker_records_nothing_twice(desk) -> None:
    secret, _ = desk.issue()
    desk.leak(secret)

    def pause(_token_id: str, act: Act) -> bool:
        ours = act()
        desk.let_time_pass()
        assert desk.respond()  # another worker, from the intent to the record
        return ours

    assert desk.respond(Around(desk.store, pause))
    desk.deliver()
    assert desk.incident()["phase"] == "revoked"
    assert desk.incident()["fence"] == 2
    assert desk.actions() == ONCE
    assert len(desk.delivered) == 1


def test_with_a_lost_claim_no_step_leaves_a_trace(desk, leaked: str) -> None:
    patience = leases.Patience(60_000, 9, None)
    with desk.engine.begin() as connection:
        ((stale,), _) = leases.claim(connection, incidents, patience, limit=1, suspect=False)
    desk.let_time_pass()
    assert desk.respond()
    seen = (desk.incident(), desk.notices(), desk.actions())
    assert commit_intents(desk.engine, [stale], patience) == {}
    for ours in (True, False):
        assert record_outcomes(desk.engine, [Done(stale, ours)]) == {}
    assert (desk.incident(), desk.notices(), desk.actions()) == seen
    assert seen[0]["id"] == leaked


def test_a_fault_of_ours_leaves_its_neighbours_alone(
    desk, caplog: pytest.LogCaptureFixture
) -> None:
    (bad, bad_id), (good, _) = desk.issue(), desk.issue()
    desk.leak(bad)
    desk.leak(good)

    def around(token_id: str, act: Act) -> bool:
        if token_id == bad_id:
            raise KeyError(bad.reveal().decode())  # whatever it says, it may say a token
        return act()

    with caplog.at_level(logging.DEBUG):
        assert desk.respond(Around(desk.store, around))
    assert validity(desk, good) is Validity.REVOKED
    (row,) = (row for row in desk.rows(incidents) if row["token_id"] == bad_id)
    assert (row["state"], row["phase"]) == ("pending", "revoking")
    assert row["error"].startswith("KeyError at around, line ")
    assert bad.reveal().decode() not in caplog.text
    desk.let_time_pass()
    assert desk.respond()
    assert validity(desk, bad) is Validity.REVOKED


def test_a_fault_of_ours_is_no_reason_to_give_a_leak_up(desk, leaked: str) -> None:
    for _ in range(10):
        assert desk.respond(Around(desk.store, before(RuntimeError())))
        desk.let_time_pass()
    assert (desk.incident()["id"], desk.incident()["state"]) == (leaked, "pending")


def alarms(desk) -> list[dict[str, Any]]:
    return [row for row in desk.notices() if row["kind"] == "alarm"]


def test_what_cannot_go_on_is_parked_and_the_operator_told(desk, leaked: str) -> None:
    desk.store.name = "another"  # the incident's store is no longer configured
    assert desk.respond()
    incident = desk.incident()
    assert (incident["phase"], incident["state"]) == ("revoking", "parked")
    assert incident["error"] == "The store memory is not configured."
    assert desk.actions() == ["leak.found", "response.parked", "revocation.decided"]
    (event,) = (e for e in desk.rows(audit_events) if e["action"] == "response.parked")
    assert (event["incident_id"], event["data"]["error"]) == (leaked, incident["error"])
    assert desk.deliver()
    (mail,) = desk.delivered
    assert (mail.notice.kind, mail.notice.to) == ("alarm", "operator@patrol.example")
    assert incident["error"] in mail.notice.context["explanation"]
    assert not desk.respond()
    # The operator mends it.
    desk.store.name = "memory"
    with desk.engine.begin() as connection:
        leases.retry_parked(connection, incidents)
    assert desk.respond()
    assert desk.incident()["phase"] == "revoked"
    assert [row["kind"] for row in desk.notices()] == ["alarm", "leak"]


def test_what_is_parked_again_is_told_again_an_hour_later(desk, leaked: str) -> None:
    for count in (1, 2, 2):
        assert desk.respond(Around(desk.store, before(FinalError("it cannot be"))))
        assert len(alarms(desk)) == count
        with desk.engine.begin() as connection:
            assert leases.retry_parked(connection, incidents) == 1
    assert desk.incident()["id"] == leaked
    first, second = sorted(row["available_at"] for row in alarms(desk))
    assert second - first == 3_600_000


def test_a_response_that_fails_again_and_again_is_told(desk, leaked: str) -> None:
    for tries in range(1, 9):
        assert desk.respond(Around(desk.store, before(RuntimeError("hush"))))
        desk.let_time_pass()
        assert len(alarms(desk)) == (0 if tries < 5 else 1)
    assert (desk.incident()["id"], desk.incident()["state"]) == (leaked, "pending")
    desk.deliver()
    (mail,) = desk.delivered
    assert mail.notice.context["title"] == "A leaked token is not revoked yet"
    assert "RuntimeError at around, line" in mail.notice.context["explanation"]
    assert "hush" not in mail.notice.context["explanation"]


def test_what_kills_its_worker_is_parked_and_the_operator_told(desk, leaked: str) -> None:
    for _ in range(3):
        with pytest.raises(Killed):
            desk.respond(Around(desk.store, before(Killed())))
        desk.let_time_pass()
    assert desk.respond(Around(desk.store, before(Killed())))
    assert (desk.incident()["id"], desk.incident()["state"]) == (leaked, "parked")
    assert desk.actions() == ["leak.found", "response.parked", "revocation.decided"]
    (alarm,) = alarms(desk)
    assert "stopped without an answer 3 times" in alarm["notice"]["context"]["explanation"]


def test_an_incident_in_an_impossible_phase_is_not_pushed_on(desk, leaked: str) -> None:
    with desk.engine.begin() as connection:
        connection.execute(update(incidents).values(phase=Phase.NOT_NEEDED.value))
    desk.respond()
    assert desk.incident()["phase"] == "not_needed"
    assert desk.rows(outbox) == []
    assert desk.incident()["id"] == leaked
