"""What becomes of a proved leak, by what the store said of the token and what the policy says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import update

from scanner.db import freezes
from scanner.db.schema import audit_events, incidents, scans
from scanner.model import Secret, Validity

DELIVERED = "notice.delivered"


def validity(desk, secret: Secret) -> Validity:
    return desk.store.find([secret])[0].validity


def finish(desk) -> None:
    """Respond and deliver until there is nothing left to do; then nothing changes any more."""
    assert desk.respond()
    desk.deliver()
    before = (desk.incident(), desk.notices(), desk.actions())
    desk.let_time_pass()
    assert not desk.respond()
    assert not desk.deliver()
    assert (desk.incident(), desk.notices(), desk.actions()) == before


def test_a_leaked_token_is_revoked_and_its_owner_told(desk) -> None:
    secret, token_id = desk.issue()
    incident_id = desk.leak(secret)
    started = desk.now()
    finish(desk)
    assert validity(desk, secret) is Validity.REVOKED
    assert desk.store.revoke(token_id, incident_id)  # it carries its cause
    incident = desk.incident()
    assert (incident["phase"], incident["state"], incident["policy_version"]) == (
        "revoked", "done", 0,
    )  # fmt: skip
    assert started <= incident["intent_at"] <= incident["revoked_at"] <= desk.now()
    assert incident["error"] is None
    assert desk.actions() == ["leak.found", DELIVERED, "revocation.decided", "token.revoked"]
    (mail,) = desk.delivered
    assert mail.notice.to == "ada@acme.example"
    assert mail.notice.reply_to == "security@acme.example"
    assert mail.notice.context["outcome"] == "revoked"
    assert mail.notice.context["addressed_as"] == "owner"


def test_each_audit_event_says_whose_and_why(desk, leaked: str) -> None:
    finish(desk)
    (scan,) = desk.rows(scans)
    events = {row["action"]: row for row in desk.rows(audit_events)}
    for action in ("leak.found", "revocation.decided", "token.revoked"):
        event = events[action]
        assert event["incident_id"] == leaked
        assert event["token_id"] == desk.incident()["token_id"]
        assert event["organisation_id"] == "Acme"
        assert event["correlation_id"] == scan["id"]
        assert event["actor"] == "patrol"
    assert events["revocation.decided"]["data"] == {
        "policy_version": 0, "reason": "the policy revokes leaked tokens",
    }  # fmt: skip
    assert events["token.revoked"]["data"]["reason"] == "leaked in public"
    assert events[DELIVERED]["data"]["to"] == "ada@acme.example"


def test_with_the_policy_off_the_owner_must_act(desk) -> None:
    secret, _ = desk.issue()
    desk.leak(secret)
    version = desk.set_policy(enabled=False)
    finish(desk)
    assert validity(desk, secret) is Validity.ACTIVE
    incident = desk.incident()
    assert (incident["phase"], incident["state"], incident["policy_version"]) == (
        "still_active", "done", version,
    )  # fmt: skip
    assert incident["revoked_at"] is None
    assert desk.actions() == ["leak.found", DELIVERED, "policy.changed", "revocation.withheld"]
    (mail,) = desk.delivered
    assert (mail.notice.to, mail.notice.context["outcome"]) == ("ada@acme.example", "still_active")
    assert mail.notice.context["revoked_at"] is None


def test_the_policy_in_force_at_the_decision_counts(desk) -> None:
    desk.set_policy(enabled=False)
    secret, _ = desk.issue()
    desk.leak(secret)
    version = desk.set_policy(enabled=True)
    finish(desk)
    assert validity(desk, secret) is Validity.REVOKED
    assert desk.incident()["policy_version"] == version == 2


def test_nothing_later_undoes_what_was_decided(desk) -> None:
    secret, _ = desk.issue()
    desk.leak(secret)
    desk.store.is_available = False
    assert desk.respond()
    assert desk.incident()["phase"] == "revoking"
    desk.set_policy(enabled=False)
    desk.store.is_available = True
    desk.let_time_pass()
    finish(desk)
    assert validity(desk, secret) is Validity.REVOKED
    assert desk.incident()["policy_version"] == 0


@pytest.mark.parametrize("enabled", [True, False])
def test_a_disabled_owners_token_is_revoked_and_the_contact_told(desk, enabled: bool) -> None:
    secret, _ = desk.issue(owner="Grace")
    desk.store.disable_owner("Grace")
    desk.leak(secret)
    desk.set_policy(enabled=enabled)
    finish(desk)
    assert validity(desk, secret) is Validity.REVOKED
    assert desk.incident()["phase"] == "revoked"
    (mail,) = desk.delivered
    assert mail.notice.to == "security@acme.example"
    assert mail.notice.context["addressed_as"] == "contact"
    assert mail.notice.context["recipient_name"] is None
    assert mail.notice.context["owner_disabled"] is True
    assert desk.actions() == [
        "leak.found", DELIVERED, "policy.changed", "revocation.decided", "token.revoked",
    ]  # fmt: skip


def test_a_token_that_was_revoked_before_is_only_recorded(desk) -> None:
    secret, token_id = desk.issue()
    desk.store.revoke_by_hand(token_id, "ada")
    desk.leak(secret)
    finish(desk)
    incident = desk.incident()
    assert (incident["phase"], incident["revoked_at"]) == ("not_needed", None)
    assert desk.notices() == desk.delivered == []
    assert desk.actions() == ["leak.found", "revocation.not_needed"]
    (event,) = (e for e in desk.rows(audit_events) if e["action"] == "revocation.not_needed")
    assert event["data"]["reason"] == "the token was already revoked"


def test_an_expired_token_is_only_recorded(desk) -> None:
    secret, _ = desk.issue(valid_to=datetime.now(UTC))
    desk.leak(secret)
    finish(desk)
    assert validity(desk, secret) is Validity.EXPIRED
    assert desk.incident()["phase"] == "not_needed"
    assert desk.notices() == []
    assert desk.actions() == ["leak.found", "revocation.not_needed"]


def test_what_the_store_cannot_judge_is_told_and_left(desk, leaked: str) -> None:
    with desk.engine.begin() as connection:
        connection.execute(update(incidents).values(validity=Validity.INACTIVE.value))
    finish(desk)
    assert desk.incident()["phase"] == "still_active"
    assert [mail.notice.context["incident_id"] for mail in desk.delivered] == [leaked]
    assert desk.actions() == ["leak.found", DELIVERED, "revocation.withheld"]


def test_somebody_else_was_faster(desk) -> None:
    secret, token_id = desk.issue()
    incident_id = desk.leak(secret)
    desk.store.revoke_by_hand(token_id, "ada")
    finish(desk)
    assert desk.incident()["phase"] == "already_revoked"
    assert not desk.store.revoke(token_id, incident_id)  # their act stays theirs
    assert desk.actions() == [
        "leak.found", DELIVERED, "revocation.decided", "revocation.not_needed",
    ]  # fmt: skip
    (mail,) = desk.delivered
    assert mail.notice.context["outcome"] == "already_revoked"
    (event,) = (e for e in desk.rows(audit_events) if e["action"] == "revocation.not_needed")
    assert event["data"]["reason"] == "somebody revoked it first"


def freeze(desk) -> None:
    with desk.engine.begin() as connection:
        assert freezes.freeze(connection, desk.store.name, "it lies")


def release(desk) -> None:
    with desk.engine.begin() as connection:
        assert freezes.release(connection, desk.store.name, "admin")


def test_with_a_frozen_store_nothing_is_decided(desk) -> None:
    secret, _ = desk.issue()
    desk.leak(secret)
    freeze(desk)
    for _ in range(5):
        assert desk.respond()
        desk.let_time_pass()
    incident = desk.incident()
    assert (incident["phase"], incident["state"], incident["intent_at"]) == (
        "open",
        "pending",
        None,
    )
    assert (incident["attempts"], incident["retries"]) == (0, 5)
    assert incident["error"] == "the store is frozen"
    assert validity(desk, secret) is Validity.ACTIVE
    assert desk.actions() == ["leak.found", "store.frozen"]
    release(desk)
    finish(desk)
    assert validity(desk, secret) is Validity.REVOKED
    assert desk.actions() == [
        "leak.found", DELIVERED, DELIVERED, DELIVERED, "revocation.decided", "store.frozen",
        "store.released", "token.revoked",
    ]  # fmt: skip


def test_with_a_frozen_store_nothing_is_revoked_that_was_decided_before(desk) -> None:
    secret, _ = desk.issue()
    desk.leak(secret)
    desk.store.is_available = False
    desk.respond()
    assert desk.incident()["phase"] == "revoking"
    desk.store.is_available = True
    freeze(desk)
    desk.let_time_pass()
    assert desk.respond()
    assert validity(desk, secret) is Validity.ACTIVE
    assert (desk.incident()["phase"], desk.incident()["state"]) == ("revoking", "pending")
    assert desk.incident()["error"] == "the store is frozen"
    release(desk)  # wakes it at once
    assert desk.respond()
    assert validity(desk, secret) is Validity.REVOKED
    assert desk.actions().count("revocation.decided") == desk.actions().count("token.revoked") == 1


def test_every_token_of_a_batch_gets_its_own_answer(desk) -> None:
    revoked, gone = desk.issue(), desk.issue()
    disabled = desk.issue(owner="Grace")
    desk.store.disable_owner("Grace")
    desk.store.revoke_by_hand(gone[1], "ada")
    for secret, _ in (revoked, gone, disabled):
        desk.leak(secret)
        desk.leak(secret, "copy.yml")
    assert desk.respond()
    assert not desk.respond()
    phases = {row["token_id"]: row["phase"] for row in desk.rows(incidents)}
    assert phases == {
        revoked[1]: "revoked", gone[1]: "not_needed", disabled[1]: "revoked",
    }  # fmt: skip
    assert desk.deliver()
    assert sorted(mail.notice.to for mail in desk.delivered) == [
        "ada@acme.example", "security@acme.example",
    ]  # fmt: skip
