"""What an operator looks at and decides: every list in both forms, empty and full."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from sqlalchemy import select, update

from scanner.db.schema import audit_events, scans, tokens
from scanner.rounds import seal_all
from tests.databases import drop_guards

LISTS = {
    "tokens": ["tokens", "list"],
    "owners": ["owners", "list"],
    "organisations": ["organisations", "list"],
    "policy": ["policy", "show"],
    "leaks": ["leaks", "list"],
    "audit": ["audit", "list"],
    "watch": ["watch", "list"],
}


@pytest.mark.parametrize("name", LISTS)
def test_an_empty_list_says_so(patrol, name: str) -> None:
    assert patrol(*LISTS[name], "--format=json").json() == []
    done = patrol(*LISTS[name])
    assert (done.code, done.out, done.err) == (0, "None.\n", "")


@pytest.fixture
def full(patrol) -> dict[str, str]:
    """Something in every list; returns what is to be found."""
    raw, token_id = patrol.issue(f"--name={'a-long-name-' * 5}", f"--owner={'Ada ' * 12}")
    incident_id = patrol.leak(raw)
    assert patrol("watch", "add", "acme/app", "--every=90m").code == 0
    return {"raw": raw, "token": token_id, "incident": incident_id}


def test_a_full_list_fits_80_columns_and_keeps_ids_whole(patrol, full: dict[str, str]) -> None:
    for name, found in {
        "tokens": [full["token"], "active", f"…{full['raw'][-4:]}"],
        "owners": ["person", "Contoso", "no"],
        "organisations": ["Contoso"],
        "policy": ["Contoso", "yes", "default"],
        "leaks": [full["incident"], "open", "1"],
        "audit": ["token.issued", "leak.found", "watch.added", full["incident"]],
        "watch": ["acme/app", "90m", "https://github.com"],
    }.items():
        done = patrol(*LISTS[name])
        assert (done.code, done.err) == (0, "")
        assert max(map(len, done.lines)) <= 80
        for text in found:
            assert re.search(rf"(?<!\S){re.escape(text)}(?!\S)", done.out), (name, text, done.out)
        assert full["raw"] not in done.out


def test_a_full_list_as_json_has_every_field(patrol, full: dict[str, str]) -> None:
    expected = {
        "tokens": {"id", "name", "organisation", "owner", "pattern", "mask", "scopes", "validity",
                   "valid_from", "valid_to", "created_at", "revoked_at", "revoked_by",
                   "organisation_id", "owner_id", "predecessor_id", "external_id"},
        "owners": {"id", "name", "kind", "email", "organisation", "organisation_id", "disabled",
                   "disabled_at"},
        "organisations": {"id", "name", "contact", "created_at", "disabled", "disabled_at"},
        "policy": {"store", "organisation", "id", "version", "auto_revoke", "changed_by",
                   "changed_at"},
        "leaks": {"id", "phase", "validity", "token", "token_id", "mask", "pattern", "organisation",
                  "owner", "sightings", "policy_version", "opened_at", "revoked_at", "work",
                  "error"},
        "audit": {"id", "at", "action", "actor", "organisation_id", "incident_id", "token_id",
                  "correlation_id", "data", "sequence"},
        "watch": {"id", "repository", "host", "every_seconds", "next_due", "every"},
    }  # fmt: skip
    for name, fields in expected.items():
        done = patrol(*LISTS[name], "--format=json")
        assert {frozenset(row) for row in done.json()} == {frozenset(fields)}, name
        assert full["raw"] not in done.out


def test_names_of_any_kind_cannot_move_the_cursor(patrol) -> None:
    """Such names are refused now; a database may hold older ones."""
    _, token_id = patrol.issue()
    services = patrol.services()
    with services.database.begin() as connection:
        hostile = {"name": "\x1b[2J\x07\n\u202egnp", "scopes": ["a\tb"]}
        connection.execute(update(tokens).where(tokens.c.id == token_id).values(hostile))
    services.engine.dispose()
    patrol.issue("--name=[red]markup[/red]", "--owner=:boom:")
    done = patrol("tokens", "list")
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", done.out)
    assert "[red]mark" in done.out.replace("\n", "")
    assert ":boom:" in done.out


# tokens.


def test_a_token_is_printed_once_and_alone(patrol) -> None:
    raw, token_id = patrol.issue("--scope=read", "--scope=write", "--days=1")
    assert re.fullmatch("[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}", raw)
    shown = patrol("tokens", "show", token_id, "--format=json").json()
    assert {
        "id": token_id, "name": "ci", "organisation": "Contoso", "owner": "Ada",
        "pattern": "azure-devops-pat", "mask": f"…{raw[-4:]}", "scopes": ["read", "write"],
        "validity": "active", "revoked_at": None, "revoked_by": None,
    }.items() <= shown.items()  # fmt: skip
    table = patrol("tokens", "show", token_id)
    assert re.search(r"^scopes +read, write *$", table.out, re.MULTILINE)
    assert re.search(r"^revoked_by +- *$", table.out, re.MULTILINE)
    assert raw not in table.out


@pytest.mark.parametrize("days", ["0", "-1", "36501", "99999999999999999999", "x", "1.5"])
def test_a_token_is_issued_for_a_sensible_time(patrol, days: str) -> None:
    done = patrol(
        "tokens", "issue", "--organisation=o", "--owner=o", "--name=n", f"--days={days}"
    )  # fmt: skip
    assert (done.code, done.out) == (2, "")
    assert "Invalid value for '--days'" in done.err
    assert patrol("tokens", "list", "--format=json").json() == []


@pytest.mark.parametrize("pattern", ["nonsense", "github-pat", ""])
def test_the_store_issues_its_own_patterns_alone(patrol, pattern: str) -> None:
    done = patrol(
        "tokens", "issue", "--organisation=o", "--owner=o", "--name=n", f"--pattern={pattern}"
    )  # fmt: skip
    assert done.code == 2
    assert "it issues: azure-devops-pat, azure-devops-pat-legacy." in done.err


def test_a_token_is_revoked_once_and_it_is_on_record(patrol) -> None:
    _, token_id = patrol.issue()
    assert patrol("tokens", "revoke", token_id).out == "Revoked.\n"
    again = patrol("tokens", "revoke", token_id)
    assert (again.code, again.err) == (2, f"patrol: {token_id} is revoked already.\n")
    shown = patrol("tokens", "show", token_id, "--format=json").json()
    assert shown["validity"] == "revoked"
    assert shown["revoked_by"].startswith("cli:")
    events = patrol("audit", "list", "--format=json").json()
    actions = ("organisation.created", "owner.created", "token.issued", "token.revoked")
    assert [(event["action"], event["actor"]) for event in events] == [
        (action, shown["revoked_by"]) for action in actions
    ]


# policy.


def test_a_policy_is_changed_by_version_and_on_record(patrol) -> None:
    patrol.issue()
    off = patrol("policy", "set", "--organisation=Contoso", "--auto-revoke=off")
    assert off.out == "Contoso: auto-revoke off (version 1).\n"
    on = patrol("policy", "set", "--organisation=Contoso", "--auto-revoke=on")
    assert on.out == "Contoso: auto-revoke on (version 2).\n"
    (row,) = patrol("policy", "show", "--format=json").json()
    assert (row["organisation"], row["version"], row["auto_revoke"]) == ("Contoso", 2, True)
    assert row["changed_by"].startswith("cli:")
    changes = [
        event["data"]
        for event in patrol("audit", "list", "--format=json").json()
        if event["action"] == "policy.changed"
    ]
    assert [(each["before"]["auto_revoke"], each["after"]["auto_revoke"]) for each in changes] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    "options",
    [
        ["--organisation=Contoso"],
        ["--auto-revoke=on"],
        ["--organisation=Contoso", "--auto-revoke=on", "--release-store=built-in"],
        ["--release-store=built-in", "--auto-revoke=on"],
    ],
)
def test_half_a_policy_and_two_at_once_are_refused(patrol, options: list[str]) -> None:
    patrol.issue()
    done = patrol("policy", "set", *options)
    assert done.code == 2
    assert "give --organisation and --auto-revoke, or --release-store" in done.err
    assert patrol("policy", "show", "--format=json").json()[0]["version"] == 0


# leaks.


def test_a_leak_is_shown_with_its_places(patrol, full: dict[str, str]) -> None:
    shown = patrol("leaks", "show", full["incident"], "--format=json").json()
    assert (shown["id"], shown["token_id"], shown["places_total"]) == (
        full["incident"], full["token"], 1
    )  # fmt: skip
    (place,) = shown["places"]
    assert {"repository": "acme/app", "path": "src/config", "commit": "a" * 40}.items() <= (
        place.items()
    )
    table = patrol("leaks", "show", full["incident"])
    assert (table.code, table.err) == (0, "")
    assert max(map(len, table.lines)) <= 80
    assert re.search(r"acme/app +src/config +1 +aaaaaaaaaaaa ", table.out)
    for done in (table, json.dumps(shown)):
        assert full["raw"] not in str(done)


# audit.


def test_the_newest_events_are_listed_oldest_first(patrol) -> None:
    for number in range(4):
        patrol("watch", "add", f"acme/{number}")
    events = patrol("audit", "list", "--limit=2", "--format=json").json()
    assert [event["data"]["repository"] for event in events] == ["acme/2", "acme/3"]


def test_verify_says_that_the_trail_is_whole_and_what_was_changed(patrol) -> None:
    empty = patrol("audit", "verify")
    assert (empty.code, empty.lines[0]) == (0, "0 sealed events, 0 not sealed yet.")
    patrol("watch", "add", "acme/app")
    waiting = patrol("audit", "verify")
    assert (waiting.code, waiting.lines[0]) == (0, "0 sealed events, 1 not sealed yet.")
    assert waiting.lines[-1] == "The trail is whole."
    seal(patrol)
    sealed = patrol("audit", "verify")
    assert (sealed.code, sealed.lines[0]) == (0, "1 sealed events, 0 not sealed yet.")
    assert re.fullmatch("Newest seal: [0-9a-f]{64}", sealed.lines[1])
    services = patrol.services()
    with services.engine.begin() as connection:
        drop_guards(connection)
        connection.execute(update(audit_events).values(actor="nobody"))
    services.engine.dispose()
    changed = patrol("audit", "verify")
    assert (changed.code, changed.lines[0]) == (1, "PROBLEM: the event of seal 1 was changed")
    assert "The trail is whole." not in changed.out


def seal(patrol) -> None:
    services = patrol.services()
    assert seal_all(services) == 1
    services.engine.dispose()


# watch.


def test_a_watch_is_added_run_and_removed(patrol) -> None:
    assert patrol("watch", "add", "acme/app", "--every=1d").out == "Watching acme/app every 1d.\n"
    (row,) = patrol("watch", "list", "--format=json").json()
    assert (row["repository"], row["every_seconds"]) == ("acme/app", 86_400)
    twice = patrol("watch", "add", "acme/app")
    assert (twice.code, twice.err) == (2, "patrol: acme/app is watched already.\n")
    assert patrol("watch", "run", "acme/app").out == "acme/app will be scanned now.\n"
    assert patrol("watch", "remove", "acme/app").out == "acme/app is no longer watched.\n"
    assert patrol("watch", "list").out == "None.\n"
    services = patrol.services()
    with services.database.connect() as connection:
        (scan,) = connection.execute(select(scans)).all()
    services.engine.dispose()
    assert (scan.source, scan.state, scan.ref) == ("watch", "pending", None)


@pytest.mark.parametrize(
    ("every", "seconds"), [("1s", 1), ("90m", 5_400), ("6h", 21_600), ("999999d", 86_399_913_600)]
)
def test_a_period_has_a_unit(patrol, every: str, seconds: int) -> None:
    assert patrol("watch", "add", "acme/app", f"--every={every}").code == 0
    assert patrol("watch", "list", "--format=json").json()[0]["every_seconds"] == seconds
    assert patrol("watch", "list").code == 0


@pytest.mark.parametrize("every", ["0s", "0", "6", "h", "-1h", "1.5h", "1w", "6 h", "", "1000000d"])
def test_a_period_of_another_shape_is_refused(patrol, every: str) -> None:
    done = patrol("watch", "add", "acme/app", f"--every={every}")
    assert done.code == 2
    assert "--every is a number and s, m, h or d, such as 6h" in done.err


@pytest.mark.parametrize(
    "name",
    ["acme", "a/b/c", "../x", "a/..", "./.", "https://github.com/a/b", "a/b?x", "é/b", "", "a /b"],
)
def test_a_repository_of_another_shape_is_refused(patrol, name: str) -> None:
    done: Any = patrol("watch", "add", "--", name)
    assert done.code == 2
    assert "the repository is OWNER/NAME" in done.err
    assert patrol("watch", "list").out == "None.\n"
