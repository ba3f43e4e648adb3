"""`patrol policy` for organisations of the issuer's own service, which have no row here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import select

from scanner.db.schema import incidents
from scanner.matcher.engine import Matcher
from scanner.model import Secret, Validity
from scanner.patterns.generate import generate
from tests.commands.conftest import Shell
from tests.stores.conftest import World, merged

SET = ("policy", "set")


@pytest.fixture
def remote(patrol: Shell, tmp_path: Path, matcher: Matcher) -> Iterator[World]:
    """The command line with a token service over HTTP, where "acme" is called "Acme Corp"."""
    with ExitStack() as stack:
        world = World(tmp_path, matcher, stack)
        change = {"organisation": {"name": "Acme Corp"}}
        file = world.write(merged(world.values("batch"), change))
        patrol.set(PATROL_STORE=file, PATROL_STORE_PATTERNS="npm-access-token")
        yield world


def leak(patrol: Shell, world: World) -> Secret:
    secret = generate("npm-access-token")
    world.service.issue(secret)
    patrol.leak(secret.reveal().decode())
    return secret


def respond(patrol: Shell) -> str:
    services = patrol.services()
    services.responder.run_batch()
    with services.database.connect() as connection:
        phase: str = connection.execute(select(incidents.c.phase)).scalar_one()
    services.close()
    return phase


@pytest.mark.parametrize("named", ["acme", "Acme Corp"])
def test_a_remote_organisations_leaks_are_left_to_their_owners(
    patrol: Shell, remote: World, named: str
) -> None:
    secret = leak(patrol, remote)
    done = patrol(*SET, "--organisation", named, "--auto-revoke=off")
    assert (done.code, done.out) == (0, "Acme Corp: auto-revoke off (version 1).\n")
    assert done.err == ""
    assert respond(patrol) == "still_active"
    assert remote.service.tokens.find([secret])[0].validity is Validity.ACTIVE
    (row,) = patrol("policy", "show", "--format=json").json()
    assert row.pop("changed_by").startswith("cli:")
    assert row.pop("changed_at") is not None
    assert row == {
        "store": "acme", "organisation": "Acme Corp", "id": "acme", "version": 1,
        "auto_revoke": False,
    }  # fmt: skip
    (event,) = (
        event
        for event in patrol("audit", "list", "--format=json").json()
        if event["action"] == "policy.changed"
    )
    assert event["organisation_id"] == "acme"
    assert event["data"] == {
        "store": "acme",
        "before": {"version": 0, "auto_revoke": True},
        "after": {"version": 1, "auto_revoke": False},
    }


def test_a_policy_may_be_set_before_the_first_leak(patrol: Shell, remote: World) -> None:
    done = patrol(*SET, "--organisation=acme", "--auto-revoke=off")
    assert (done.code, done.out) == (0, "acme: auto-revoke off (version 1).\n")
    assert "Nothing of acme has leaked" in done.err  # a mistyped name would look like this, too
    leak(patrol, remote)
    assert respond(patrol) == "still_active"


def test_without_a_policy_a_remote_leak_is_revoked(patrol: Shell, remote: World) -> None:
    leak(patrol, remote)
    (row,) = patrol("policy", "show", "--format=json").json()
    assert (row["store"], row["organisation"], row["changed_by"]) == (
        "acme", "Acme Corp", "default",
    )  # fmt: skip
    assert respond(patrol) == "revoked"


def test_one_name_in_two_stores_needs_the_store(patrol: Shell, remote: World) -> None:
    assert patrol("organisations", "create", "--name=Acme Corp").code == 0
    leak(patrol, remote)
    done = patrol(*SET, "--organisation=Acme Corp", "--auto-revoke=off")
    assert done.code == 2
    assert "Several organisations are called 'Acme Corp'" in done.err
    assert "--store acme --organisation acme" in done.err
    done = patrol(*SET, "--organisation=Acme Corp", "--store=built-in", "--auto-revoke=off")
    assert done.code == 0
    rows = patrol("policy", "show", "--format=json").json()
    assert [(row["store"], row["auto_revoke"]) for row in rows] == [
        ("built-in", False), ("acme", True),
    ]  # fmt: skip
    assert respond(patrol) == "revoked"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--organisation=acme", "--store=elsewhere"], "no store 'elsewhere'; known: acme, built-"),
        (
            ["--organisation=Nobody", "--store=built-in"],
            "no organisation 'Nobody'; known: none yet",
        ),
        (["--organisation=" + "x" * 65], "There is no organisation"),
        (["--organisation="], "There is no organisation ''"),
    ],
)
@pytest.mark.usefixtures("remote")
def test_what_can_be_no_organisation(patrol: Shell, options: list[str], said: str) -> None:
    done = patrol(*SET, *options, "--auto-revoke=off")
    assert done.code == 2
    assert said in done.err
    assert patrol("policy", "show", "--format=json").json() == []
