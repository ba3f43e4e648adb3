"""Rotation is killed at each of its steps: there is one successor, or there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scanner.db.schema import tokens
from scanner.errors import ConflictError
from tests.tokens.killed_rotate import OVERLAP

ROOT = Path(__file__).parents[2]
MORE_THAN_STEPS = 30


def test_a_rotation_that_is_killed_was_done_or_was_not(desk: Any) -> None:
    """Untouched and to be rotated again, or in its overlap with one successor; never between."""
    desk.leak(desk.new_secret())  # a place whose token nobody knows: rotating looks at those, too
    before = {made["id"]: made for made in (desk.create()[1] for _ in range(MORE_THAN_STEPS))}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_rotate.py"), desk.url, *before],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [word for token_id in before for word in (token_id, "killed")]
    successors = {
        row["predecessor_id"]: row for row in desk.rows(tokens) if row["predecessor_id"] is not None
    }
    events = {event["token_id"]: event["data"] for event in desk.events("token.rotated")}
    assert events.keys() == successors.keys()
    was_done = [token_id in successors for token_id in before]
    assert was_done == sorted(was_done)  # from one step on, and always after it
    assert 5 < was_done.index(True) < MORE_THAN_STEPS - 1
    for token_id, old in before.items():
        now = desk.tokens.get(token_id)
        if token_id not in successors:
            assert now == old
            assert desk.tokens.rotate(
                token_id, desk.new_secret(), mask="npm_…a1B2", overlap=OVERLAP, actor="test"
            )
            continue
        assert now["validity"] == "active"
        assert now["valid_to"] == events[token_id]["valid_to"] < old["valid_to"]
        assert events[token_id]["successor_id"] == successors[token_id]["id"]
        with pytest.raises(ConflictError, match=successors[token_id]["id"]):
            desk.tokens.rotate(token_id, desk.new_secret(), mask="npm_…a1B2", actor="test")
