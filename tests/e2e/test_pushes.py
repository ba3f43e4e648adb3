"""Pushes as they come in the world: policy, repeats, forks, lost webhooks, every kind of ref."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from scanner.db import policies
from scanner.db.schema import audit_events, incidents, outbox, scans, sightings, tokens

ZEROS = "0" * 40


@pytest.fixture
def follow(house, wait):
    """Deliver a push and wait until its scan, its incidents and their mails are at rest."""

    def run(name: str, before: str, after: str, **fields: Any) -> Any:
        answer = house.deliver(house.push_event(name, before, after, **fields))
        assert answer.status_code == 202, answer.text
        return at_rest(answer.json()["scan"])

    def at_rest(scan_id: str) -> Any:
        query = select(scans).where(scans.c.id == scan_id)
        wait("the scan", lambda: house.rows(query)[0]["state"] not in ("pending", "running"))
        for table in (incidents, outbox):
            working = select(table.c.id).where(table.c.state.in_(("pending", "running")))
            wait(f"every row of {table.name}", lambda working=working: not house.rows(working))
        return house.rows(query)[0]

    return run


@pytest.fixture
def outcome(house):
    """What became of a token: (its row, its incidents, their sightings, audit actions, mails)."""

    def look(token_id: str) -> tuple[Any, list[Any], list[Any], list[str], list[Any]]:
        (token,) = house.rows(select(tokens).where(tokens.c.id == token_id))
        found = house.rows(select(incidents).where(incidents.c.token_id == token_id))
        ids = [row["id"] for row in found]
        places = house.rows(select(sightings).where(sightings.c.incident_id.in_(ids)))
        events = house.rows(
            select(audit_events.c.action)
            .where(audit_events.c.incident_id.in_(ids))
            .order_by(audit_events.c.at)
        )
        actions = sorted(row["action"] for row in events)
        mails = [mail for incident in ids for mail in house.mails(incident)]
        return token, found, places, actions, mails

    return look


def test_a_leak_is_found_revoked_mailed_and_audited(house, follow, outcome) -> None:
    token, token_id = house.issue("ci-deploy")
    assert house.status(token) == 200
    repository = house.repository("acme/loop")
    before = repository.commit({"README.md": "hello\n"})
    after = repository.commit({"config/deploy.ini": f"[deploy]\nkey = {token}\n"}, "Deploy")
    repository.push()
    scan = follow("acme/loop", before, after)
    assert (scan["state"], scan["candidates"], scan["partial"]) == ("done", 1, [])
    row, (incident,), (place,), actions, (mail,) = outcome(token_id)
    assert (row["state"], row["revoked_by"]) == ("revoked", incident["id"])
    assert (incident["phase"], incident["validity"]) == ("revoked", "active")
    assert (place["path"], place["line"], place["column"]) == ("config/deploy.ini", 2, 7)
    assert place["commit"] == after
    assert actions == ["leak.found", "notice.delivered", "revocation.decided", "token.revoked"]
    assert mail["Subject"].startswith("Revoked: your token “ci-deploy”")
    assert mail["To"] == "ada@contoso.example"
    text = mail.get_body(("plain",)).get_content()
    for fact in ("acme/loop", "config/deploy.ini", "line 2", after[:12], token[-4:], "vso.code"):
        assert fact in text
    assert f"{house.server.url}/acme/loop/commit/{after}" in text
    assert token not in mail.as_string()
    assert house.status(token) == 401


def test_with_the_policy_off_the_owner_is_told_and_nothing_is_revoked(
    house, follow, outcome
) -> None:
    token, token_id = house.issue("kept", organisation="Fabrikam")
    with house.services.database.begin() as connection:
        policies.set_auto_revoke(connection, "Fabrikam", enabled=False, actor="test")
    repository = house.repository("acme/kept")
    after = repository.commit({"key": token})
    repository.push()
    follow("acme/kept", ZEROS, after)
    row, (incident,), _, actions, (mail,) = outcome(token_id)
    assert (row["state"], row["revoked_by"]) == ("active", None)
    assert (incident["phase"], incident["policy_version"]) == ("still_active", 1)
    assert actions == ["leak.found", "notice.delivered", "revocation.withheld"]
    assert mail["Subject"].startswith("Action needed: your token “kept”")
    assert house.status(token) == 200


def test_one_token_in_two_repositories_and_a_redelivery_are_one_incident(
    house, follow, outcome
) -> None:
    token, token_id = house.issue()
    content = {"same.txt": f"the same blob: {token}\n"}
    first, second = house.repository("acme/one"), house.repository("acme/two")
    heads = [repository.commit(content) for repository in (first, second)]
    for repository in (first, second):
        repository.push()
    body = house.push_event("acme/one", ZEROS, heads[0])
    answers = [house.deliver(body).json() for _ in range(3)]
    assert [answer["duplicate"] for answer in answers] == [False, True, True]
    assert len({answer["scan"] for answer in answers}) == 1
    follow("acme/two", ZEROS, heads[1])
    follow("acme/one", ZEROS, heads[0])  # the same push, announced by another delivery
    _, found, places, actions, mails = outcome(token_id)
    assert [row["sightings"] for row in found] == [2]
    assert len({row["repository_id"] for row in places}) == len(places) == 2
    assert len({row["object_id"] for row in places}) == 1
    assert len(mails) == 1
    assert actions.count("token.revoked") == actions.count("leak.found") == 1
    assert actions.count("leak.seen_again") == 1


def test_a_token_whose_webhook_was_lost_is_found_by_the_next_push(house, follow, outcome) -> None:
    repository = house.repository("acme/lost")
    a = repository.commit({"a": "a"})
    repository.push()
    follow("acme/lost", ZEROS, a)
    token, token_id = house.issue()
    b = repository.commit({"b": token})  # its webhook is lost, and the token leaves at once
    repository.push()
    c = repository.commit({"b": "nothing to see"})
    repository.push()
    follow("acme/lost", b, c)
    row, (incident,), (place,), _, mails = outcome(token_id)
    assert row["revoked_by"] == incident["id"]
    assert place["commit"] == b
    assert len(mails) == 1


def test_what_is_fetched_is_only_what_is_new(house, follow) -> None:
    repository = house.repository("acme/small")
    a = repository.commit({"big": "x y z " * 200_000})
    repository.push()
    first = follow("acme/small", ZEROS, a)
    b = repository.commit({"little": "1"})
    repository.push()
    second = follow("acme/small", a, b)
    assert (first["objects"], second["objects"]) == (3, 3)
    assert second["bytes"] < 1_000
    again = follow("acme/small", b, b)
    assert (again["state"], again["bytes"], again["objects"]) == ("done", 0, 0)


def test_a_forced_push_does_not_hide_what_it_orphans(house, follow, outcome) -> None:
    repository = house.repository("acme/forced")
    base = repository.commit({"a": "a"})
    repository.push()
    follow("acme/forced", ZEROS, base)
    token, token_id = house.issue()
    regretted = repository.commit({"key": token})
    repository.push()  # no webhook came
    repository.git("reset", "--quiet", "--hard", base)
    after = repository.commit({"b": "b"})
    repository.push()
    scan = follow("acme/forced", regretted, after, forced=True)
    assert scan["state"] == "done"
    row, (incident,), (place,), _, _ = outcome(token_id)
    assert (row["revoked_by"], place["commit"]) == (incident["id"], regretted)


def test_orphans_that_are_gone_are_said_to_be(house, follow) -> None:
    repository = house.repository("acme/gone")
    after = repository.commit({"a": "a"})
    repository.push()
    scan = follow("acme/gone", "1" * 40, after, forced=True)
    assert (scan["state"], scan["partial"]) == ("partial", ["orphaned-commits-gone: 1"])


def test_a_deleted_branch_is_read_once_more(house, follow, outcome) -> None:
    token, token_id = house.issue()
    repository = house.repository("acme/deleted")
    kept = repository.commit({"a": "a"})
    repository.push()
    side = repository.commit({"key": token})
    repository.push("HEAD:refs/heads/side")
    repository.push(":refs/heads/side")
    follow("acme/deleted", side, ZEROS, ref="refs/heads/side", deleted=True)
    row, (incident,), _, _, _ = outcome(token_id)
    assert row["revoked_by"] == incident["id"]
    assert kept != side


def test_an_unknown_before_and_an_annotated_tag(house, follow, outcome) -> None:
    (named, named_id), (spoken, spoken_id) = house.issue(), house.issue()
    repository = house.repository("acme/tag")
    repository.commit({"key": named})
    repository.git("tag", "-a", "v1", "-m", f"Released with {spoken}")
    tag = repository.git("rev-parse", "v1")
    repository.push("v1")
    follow("acme/tag", "2" * 40, tag, ref="refs/tags/v1")
    for token_id, kind in ((named_id, "blob"), (spoken_id, "tag")):
        row, (incident,), (place,), _, _ = outcome(token_id)
        assert (row["revoked_by"], place["object_kind"]) == (incident["id"], kind)


def test_a_push_of_nothing_is_done_at_once(house, follow) -> None:
    scan = follow("acme/nothing", ZEROS, ZEROS)
    assert (scan["state"], scan["objects"], scan["bytes"]) == ("done", 0, 0)
