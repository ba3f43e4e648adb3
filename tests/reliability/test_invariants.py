"""What must hold, whatever fails: one test a line that no other room tests. docs/reliability.md has
the whole list."""

from __future__ import annotations

from sqlalchemy import select

from scanner.db.schema import audit_events, incidents, scans
from tests.reliability.installation import Installation, Workers, new_name

ONCE = range(1, 2)


def test_poison_input_is_parked_and_shown_and_its_neighbours_go_on(
    installation: Installation, workers: Workers
) -> None:
    house = installation.house
    poison = installation.leak(new_name(), "revoked")
    for _ in range(house.services.settings.max_attempts):
        assert workers.dies(poison, None, "git: the pack is here")
        installation.rest()
    neighbour = installation.leak(new_name(), "revoked")
    workers.work(neighbour)
    assert installation.problems(neighbour, flow="revoked", mails=ONCE) == []
    assert house.rows(select(incidents).where(incidents.c.token_id == poison.token_id)) == []
    (parked,) = house.rows(select(scans).where(scans.c.state == "parked"))
    (event,) = house.rows(select(audit_events).where(audit_events.c.action == "scan.parked"))
    assert event["correlation_id"] == parked["id"]
    assert "parked" in house.patrol("doctor").stdout
    assert "1 parked" in house.patrol("doctor", "--retry").stdout
    workers.work(poison)
    assert installation.problems(poison, flow="revoked", mails=ONCE) == []
    assert installation.unfinished() == []
