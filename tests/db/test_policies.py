"""Policies: versions that only grow, audited with before and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select

from scanner.db import policies
from scanner.db.engine import reader
from scanner.db.schema import audit_events, organisations
from scanner.db.tokens import BUILT_IN
from scanner.errors import FinalError
from scanner.policy import Policy


@pytest.fixture(autouse=True)
def two_organisations(engine: Engine) -> None:
    with engine.begin() as connection:
        for number, name in ((1, "Contoso"), (2, "Acme")):
            connection.execute(
                insert(organisations).values(id=f"org-{number}", name=name, created_at=0)
            )


def test_without_a_policy_leaked_tokens_are_revoked(engine: Engine) -> None:
    with reader(engine).connect() as connection:
        assert policies.current_policy(connection, BUILT_IN, "org-1") == Policy(0, True)
        assert policies.current_policy(connection, BUILT_IN, "nobody") == Policy(0, True)


def test_each_change_is_a_version(engine: Engine) -> None:
    with engine.begin() as connection:
        for version, enabled in enumerate((False, True, True), 1):
            after = policies.set_auto_revoke(connection, "Acme", enabled=enabled, actor="ada")
            assert after == Policy(version, enabled)
            assert policies.current_policy(connection, BUILT_IN, "org-2") == after
        assert policies.current_policy(connection, BUILT_IN, "org-1") == Policy()
        assert policies.current_policy(connection, "acme", "org-2") == Policy()


def test_a_change_is_audited_with_before_and_after(engine: Engine) -> None:
    with engine.begin() as connection:
        policies.set_auto_revoke(connection, "Acme", enabled=False, actor="ada")
    with reader(engine).connect() as connection:
        (event,) = connection.execute(select(audit_events))
    assert (event.action, event.actor, event.organisation_id) == (
        "policy.changed", "ada", "org-2",
    )  # fmt: skip
    assert event.data == {
        "store": BUILT_IN,
        "before": {"version": 0, "auto_revoke": True},
        "after": {"version": 1, "auto_revoke": False},
    }


def test_an_unknown_organisation_is_told_with_the_known_ones(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(FinalError) as caught:
        policies.set_auto_revoke(connection, "Acne", enabled=False, actor="ada")
    assert str(caught.value) == "There is no organisation 'Acne'; known: Acme, Contoso."
    with reader(engine).connect() as connection:
        assert connection.execute(select(audit_events)).all() == []


def test_changes_at_once_are_versions_of_their_own(
    engine: Engine, connect: Callable[[], Engine], at_once: Callable[..., list[Any]]
) -> None:
    def change(worker: Engine) -> int:
        with worker.begin() as connection:
            return policies.set_auto_revoke(connection, "Acme", enabled=False, actor="ada").version

    engines = [connect() for _ in range(4)]
    versions = at_once(*(lambda worker=worker: change(worker) for worker in engines))
    assert sorted(versions) == [1, 2, 3, 4]


def test_the_list_tells_what_is_in_force(engine: Engine) -> None:
    with engine.begin() as connection:
        policies.set_auto_revoke(connection, "Contoso", enabled=True, actor="ada")
        policies.set_auto_revoke(connection, "Contoso", enabled=False, actor="bob")
        default, changed = policies.list_policies(connection)
    assert default == {
        "store": BUILT_IN, "organisation": "Acme", "id": "org-2", "version": 0, "auto_revoke": True,
        "changed_by": "default", "changed_at": None,
    }  # fmt: skip
    assert changed.pop("changed_at").endswith("Z")
    assert changed == {
        "store": BUILT_IN, "organisation": "Contoso", "id": "org-1", "version": 2,
        "auto_revoke": False, "changed_by": "bob",
    }  # fmt: skip
