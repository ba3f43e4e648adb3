"""kill -9 at every commit and at every call to the outside: one revocation, one mail, one trail.

The points are listed nowhere: a first run tells which there are. With EVERY_POINT=1 every flow dies
at each of its own; without, the others die only where the first one does not come by, or where a
raw token is held.
"""

from __future__ import annotations

import os

import pytest

from tests.reliability.installation import Flow, Installation, Workers, new_name

FLOWS: tuple[Flow, ...] = ("revoked", "away", "kept", "watched", "by_secret")
ONCE, TWICE = range(1, 2), range(2, 3)


@pytest.fixture(scope="module")
def common(installation: Installation) -> set[str]:
    """What the first flow came by, on this database."""
    assert installation.unfinished() == []
    return set()


@pytest.mark.parametrize("flow", FLOWS)
def test_killed_at_every_point(
    installation: Installation, workers: Workers, common: set[str], flow: Flow
) -> None:
    installation.forget_watches()  # of another flow: due at some time or other
    dry = installation.leak(new_name(), flow)
    points = workers.work(dry)
    assert installation.problems(dry, flow=flow, mails=ONCE) == []
    wrong: dict[str, list[str]] = {}
    for at, label in enumerate(points, 1):
        if label in common and not os.environ.get("EVERY_POINT"):
            continue
        leak = installation.leak(new_name(), flow)
        assert workers.dies(leak, at, label), f"nothing died at {at}. {label}"
        installation.rest()
        workers.work(leak)
        # The mail server has said yes, and nothing of ours knows it yet.
        mails = TWICE if is_between(points, at) else ONCE
        found = installation.problems(leak, flow=flow, mails=mails)
        if found:
            wrong[f"{at}. {label}"] = found
    assert wrong == {}
    assert installation.unfinished() == []
    trail = installation.trail()
    assert (trail.problems, trail.unsealed) == ((), 0)
    if flow == "revoked":
        common.update(label for label in points if "sealed_candidates" not in label)


def is_between(points: list[str], at: int) -> bool:
    """True from the mail server's yes until the commit that says so."""
    said = [number for number, label in enumerate(points, 1) if label == "SMTP: before QUIT"]
    told = [
        number for number, label in enumerate(points, 1)
        if label.startswith("after commit") and number > said[0]
    ]  # fmt: skip
    return said[0] <= at < told[0]
