"""The incident's table: these edges and no other, and one way out of an end: to begin anew."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner import incident
from scanner.errors import FinalError
from scanner.incident import TRANSITIONS, Phase, advance

EDGES = {
    ("open", "revoking"),
    ("open", "still_active"),
    ("open", "not_needed"),
    ("revoking", "revoked"),
    ("revoking", "already_revoked"),
    ("still_active", "revoking"),
    # The token works again, or the policy has changed.
    ("not_needed", "open"),
    ("revoked", "open"),
    ("already_revoked", "open"),
    ("still_active", "open"),
}
DEAD = {Phase.REVOKED, Phase.ALREADY_REVOKED}
AT_REST = DEAD | {Phase.NOT_NEEDED}


def test_the_table_is_complete() -> None:
    assert set(TRANSITIONS) == set(Phase)
    assert {(a.value, b.value) for a, targets in TRANSITIONS.items() for b in targets} == EDGES
    assert all(TRANSITIONS[phase] == {Phase.OPEN} for phase in AT_REST)


@pytest.mark.parametrize(("current", "target"), list(itertools.product(Phase, Phase)))
def test_advance_follows_the_table(current: Phase, target: Phase) -> None:
    if (current.value, target.value) in EDGES:
        assert advance(current, target) is target
    else:
        expected = f"cannot go from {current.value} to {target.value}."
        with pytest.raises(FinalError, match=re.escape(expected)):
            advance(current, target)


@settings(derandomize=True, database=None, max_examples=200)
@given(st.lists(st.sampled_from(Phase), max_size=12))
def test_no_path_runs_in_a_circle_but_through_the_beginning(targets: list[Phase]) -> None:
    phase, seen = Phase.OPEN, [Phase.OPEN]
    for target in targets:
        try:
            phase = advance(phase, target)
        except FinalError:
            continue
        seen = [phase] if phase is Phase.OPEN else [*seen, phase]
    assert len(seen) == len(set(seen))


def test_every_phase_can_be_reached_and_every_path_can_end() -> None:
    def reachable(start: Phase) -> set[Phase]:
        found = {start}
        while more := set().union(*(TRANSITIONS[phase] for phase in found)) - found:
            found |= more
        return found

    assert reachable(Phase.OPEN) == set(Phase)
    assert all(reachable(phase) & AT_REST for phase in Phase)
    assert all(reachable(phase) >= DEAD for phase in Phase)


def test_the_picture_shows_every_phase() -> None:
    assert incident.__doc__ is not None
    assert all(re.search(rf"\b{phase.value}\b", incident.__doc__) for phase in Phase)
