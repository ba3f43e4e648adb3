"""What must not come in, and what could not be done: a clear status, and nothing lost."""

from __future__ import annotations

import json

import httpx2
import pytest
from sqlalchemy import func, select, update

from scanner.db.schema import audit_events, incidents, scans
from tests.databases import on_sqlite

pytestmark = on_sqlite  # what is refused reaches no database
ZEROS = "0" * 40
MEBIBYTE = 1 << 20


@pytest.fixture
def accepted(house):
    """How many pushes are stored."""
    return lambda: house.rows(select(func.count().label("n")).select_from(scans))[0]["n"]


def push(house) -> bytes:
    return house.push_event("acme/refused", ZEROS, "a" * 40)


@pytest.mark.parametrize("signature", [None, "", "sha256=", "sha256=" + "0" * 64, "sha1=abc", "é"])
def test_a_forged_signature_is_refused(house, accepted, signature) -> None:
    before = accepted()
    answer = house.deliver(push(house), signature=signature)
    assert (answer.status_code, accepted()) == (401, before)
    assert "signature" in answer.json()["error"].lower()


def test_a_body_that_was_changed_after_signing_is_refused(house, accepted) -> None:
    before = accepted()
    good = house.deliver(push(house))
    assert good.status_code == 202
    signature = good.request.headers["x-hub-signature-256"]
    changed = house.deliver(
        push(house).replace(b"acme/refused", b"acme/changed"), signature=signature
    )
    assert (changed.status_code, accepted()) == (401, before + 1)


@pytest.mark.parametrize("chunked", [False, True])
def test_thirty_megabytes_are_refused(house, accepted, chunked) -> None:
    before = accepted()
    body = b"x" * (30 * MEBIBYTE)
    pieces = (body[at : at + MEBIBYTE] for at in range(0, len(body), MEBIBYTE))
    try:
        answer = httpx2.post(
            f"{house.url}/webhooks/github",
            content=pieces if chunked else body,
            headers={"X-Hub-Signature-256": "sha256=" + "0" * 64},
            trust_env=False,
            timeout=30,
        )
    except httpx2.TransportError:
        pytest.fail("the refusal did not reach the sender")
    assert (answer.status_code, accepted()) == (413, before)


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000,
        json.dumps({"ref": "refs/heads/x", "before": ZEROS, "after": ZEROS}).encode(),
        json.dumps({"ref": 1, "before": ZEROS, "after": ZEROS,
                    "repository": {"full_name": "a/b"}}).encode(),
        json.dumps({"ref": "refs/heads/x", "before": "HEAD", "after": ZEROS,
                    "repository": {"full_name": "a/b"}}).encode(),
        *(json.dumps({"ref": "refs/heads/x", "before": ZEROS, "after": ZEROS,
                      "repository": {"full_name": name}}).encode()
          for name in ("a", "a/../b", "a/..", "../a", "a/b/c", "a/b\n", "evil.example:80/a", 7)),
    ],
)  # fmt: skip
def test_a_signed_body_that_is_no_push_is_refused(house, accepted, body) -> None:
    before = accepted()
    answer = house.deliver(body)
    assert (answer.status_code, accepted()) == (400, before)
    assert answer.json()["error"]


def test_a_ping_and_events_that_are_no_push_are_answered(house, accepted) -> None:
    before = accepted()
    ping = house.deliver(
        b'{"zen": "Speak like a human.", "hook_id": 1}', **{"X-GitHub-Event": "push"}
    )
    other = house.deliver(b'{"action": "opened"}', **{"X-GitHub-Event": "push"})
    assert (ping.status_code, ping.json(), other.status_code) == (200, {"pong": True}, 200)
    assert accepted() == before


def test_a_repository_that_comes_later_is_not_lost(house, wait) -> None:
    token, token_id = house.issue()
    body = house.push_event("acme/later", ZEROS, "b" * 40)
    scan_id = house.deliver(body).json()["scan"]
    query = select(scans).where(scans.c.id == scan_id)
    wait("the refusal", lambda: "does not exist" in (house.rows(query)[0]["error"] or ""))

    def hours_pass() -> bool:
        """It is asked for again, and waits: now for the last time."""
        waiting = update(scans).where(scans.c.id == scan_id, scans.c.state == "pending")
        with house.services.database.begin() as connection:
            return bool(connection.execute(waiting.values(retries=20, available_at=0)).rowcount)

    wait("it to wait", hours_pass)
    wait("the scan to be parked", lambda: house.rows(query)[0]["state"] == "parked")
    assert "does not exist" in house.rows(query)[0]["error"]
    parked = select(audit_events).where(
        audit_events.c.correlation_id == scan_id, audit_events.c.action == "scan.parked"
    )
    assert len(house.rows(parked)) == 1
    doctor = house.patrol("doctor")
    assert doctor.returncode == 2
    assert "parked" in doctor.stdout
    # It appears, and the push is announced once more: the same scan goes on.
    repository = house.repository("acme/later")
    after = repository.commit({"key": token})
    repository.push()
    scan_id = house.deliver(house.push_event("acme/later", ZEROS, after)).json()["scan"]
    query = select(scans).where(scans.c.id == scan_id)
    wait("the scan", lambda: house.rows(query)[0]["state"] == "done")
    found = select(incidents.c.phase).where(incidents.c.token_id == token_id)
    wait("the revocation", lambda: [r["phase"] for r in house.rows(found)] == ["revoked"])


def test_the_api_answers_nobody_without_its_token(house) -> None:
    for path in ("/api/v1/leaks", "/api/v1/audit", "/api/v1/leaks/x", "/api/v1/whoami"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
            answer = httpx2.get(f"{house.url}{path}", headers=headers, trust_env=False)
            assert answer.status_code == 401, path
    bearer = {"Authorization": f"Bearer {house.services.settings.api_bearer}"}
    answer = httpx2.get(f"{house.url}/api/v1/leaks", headers=bearer, trust_env=False)
    assert answer.status_code == 200
    assert isinstance(answer.json()["leaks"], list)
