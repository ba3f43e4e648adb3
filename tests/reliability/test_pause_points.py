"""A worker that stops at any point, and goes on when another one has done its work: it changes
nothing. That is what fencing numbers are for."""

from __future__ import annotations

from tests.reliability.installation import Installation, Workers, new_name

ONCE, ONCE_OR_TWICE = range(1, 2), range(1, 3)


def test_paused_at_every_point(installation: Installation, workers: Workers) -> None:
    """Within a transaction SQLite's only writer would stop everybody: not there. PostgreSQL ends a
    transaction whose client is silent; its owner finds its connection gone when it goes on."""
    points = workers.work(installation.leak(new_name(), "revoked"))
    mailing = [at for at, label in enumerate(points, 1) if label.startswith("SMTP:")]
    wrong: dict[str, list[str]] = {}
    for at, label in enumerate(points, 1):
        is_inside = label.startswith("before commit")
        if is_inside and installation.has_one_writer:
            continue
        leak = installation.leak(new_name(), "revoked")
        assert workers.stops(leak, at, label), f"nothing stopped at {at}. {label}"
        if is_inside:
            installation.end_silent_client()
        installation.rest()
        workers.work(leak)
        went_on = workers.resume()
        workers.work(leak)  # what the late one began anew, if anything
        # From the last look at its lease on, two that mail at once cannot see each other.
        mails = ONCE_OR_TWICE if mailing[0] - 1 <= at <= mailing[-1] + 1 else ONCE
        found = installation.problems(leak, flow="revoked", mails=mails)
        if not (went_on or is_inside):
            found.append("it did not end well")
        if found:
            wrong[f"{at}. {label}"] = found
    assert wrong == {}
    assert installation.unfinished() == []
    trail = installation.trail()
    assert (trail.problems, trail.unsealed) == ((), 0)
