"""The decision, for every validity there is and both settings of the policy."""

from __future__ import annotations

import itertools

import pytest

from scanner.model import Validity
from scanner.policy import Action, Policy, decide

# With the policy on, and off. What is not proved in full never comes here; were it to, it would
# not revoke (law 3).
EXPECTED = {
    Validity.ACTIVE: (Action.REVOKE, Action.NOTIFY),
    Validity.REVOKED: (Action.RECORD, Action.RECORD),
    Validity.EXPIRED: (Action.RECORD, Action.RECORD),
    Validity.OWNER_DISABLED: (Action.REVOKE, Action.REVOKE),
    Validity.NEVER_ISSUED: (Action.NOTIFY, Action.NOTIFY),
    Validity.INACTIVE: (Action.NOTIFY, Action.NOTIFY),
    Validity.STORE_UNAVAILABLE: (Action.NOTIFY, Action.NOTIFY),
    Validity.UNCHECKED: (Action.NOTIFY, Action.NOTIFY),
}


def test_every_validity_is_thought_of() -> None:
    assert set(EXPECTED) == set(Validity)


@pytest.mark.parametrize(("validity", "on"), list(itertools.product(Validity, [True, False])))
def test_the_decision(validity: Validity, on: bool) -> None:
    decision = decide(validity, Policy(7, auto_revoke=on))
    assert decision.action is EXPECTED[validity][0 if on else 1]
    assert decision.policy_version == 7
    assert decision.reason


def test_the_default_revokes() -> None:
    assert Policy() == Policy(0, auto_revoke=True)
    assert decide(Validity.ACTIVE, Policy()).action is Action.REVOKE


def test_reasons_tell_the_cases_apart() -> None:
    reasons = {
        decide(validity, Policy(auto_revoke=on)).reason
        for validity, on in itertools.product(
            (Validity.ACTIVE, Validity.REVOKED, Validity.EXPIRED, Validity.OWNER_DISABLED,
             Validity.INACTIVE), (True, False),
        )
    }  # fmt: skip
    assert len(reasons) == 6
