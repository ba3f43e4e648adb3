"""Deadlines: what is left, and that only what comes sooner counts."""

from __future__ import annotations

from scanner.deadline import Deadline


def test_without_an_end_nothing_is_over() -> None:
    deadline = Deadline()
    assert deadline.left == float("inf")
    assert not deadline.is_over


def test_time_runs_out() -> None:
    assert Deadline(0).is_over
    assert Deadline(-1).left == 0
    deadline = Deadline(60)
    assert 59 < deadline.left <= 60
    assert not deadline.is_over


def test_a_deadline_can_only_be_cut() -> None:
    deadline = Deadline(60)
    deadline.cut(90)
    assert (deadline.left <= 60, deadline.was_cut) == (True, False)
    deadline.cut(30)
    assert (deadline.left <= 30, deadline.was_cut, deadline.is_over) == (True, True, False)
    deadline.cut(0)
    assert deadline.is_over
