"""Incidents and sightings: one incident a token, each place once, and a bound on the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, insert, select

from scanner.db import incidents
from scanner.db.engine import reader
from scanner.db.schema import audit_events, sightings
from scanner.db.schema import incidents as table
from scanner.db.verdicts import Finding, record_findings
from scanner.fingerprint import fingerprint
from scanner.keyring import Key
from scanner.model import LocatedCandidate, Lookup, Place, Secret, Validity

KEY = Key("f1", b"fingerprint-key")
UNKNOWN = Lookup(Validity.NEVER_ISSUED)
Known = Callable[..., Lookup]
SeenAt = Callable[..., LocatedCandidate]
AddScan = Callable[..., dict[str, Any]]


def find(
    connection: Connection,
    scan: dict[str, Any],
    found: LocatedCandidate,
    lookup: Lookup,
    path: str = "a.env",
) -> None:
    record_findings(connection, scan, [Finding(found, lookup, path)], [KEY])


def rows(engine: Engine, what: Any = sightings) -> list[Any]:
    with reader(engine).connect() as connection:
        return list(connection.execute(select(what)))


def actions(engine: Engine) -> list[str]:
    return sorted(row.action for row in rows(engine, audit_events))


def test_the_first_leak_of_a_token_opens_its_incident(
    engine: Engine, known: Known, seen_at: SeenAt, add_scan: AddScan
) -> None:
    with engine.begin() as connection:
        scan = add_scan(connection)
        find(connection, scan, seen_at(), known(validity=Validity.EXPIRED))
    (incident,) = rows(engine, table)
    assert (incident.store, incident.token_id, incident.organisation_id) == (
        "built-in", "t-1", "org-1",
    )  # fmt: skip
    assert (incident.phase, incident.validity, incident.state) == ("open", "expired", "pending")
    assert (incident.attempts, incident.retries, incident.fence, incident.sightings) == (0, 0, 0, 1)
    assert incident.correlation_id == scan["id"]
    assert incident.token["scopes"] == ["read", "write"]
    (event,) = rows(engine, audit_events)
    assert (event.action, event.incident_id, event.token_id, event.correlation_id) == (
        "leak.found", incident.id, "t-1", scan["id"],
    )  # fmt: skip
    assert event.data == {"validity": "expired", "mask": "npm_…a1B2"}


def test_one_incident_a_token_many_sightings(
    engine: Engine, known: Known, seen_at: SeenAt, add_scan: AddScan
) -> None:
    with engine.begin() as connection:
        for repository in ("acme/app", "acme/fork"):
            scan = add_scan(connection, repository)
            for number in range(2):
                find(connection, scan, seen_at(number), known())
    (incident,) = rows(engine, table)
    assert incident.sightings == 4
    assert {row.incident_id for row in rows(engine)} == {incident.id}
    assert actions(engine) == ["leak.found", *["leak.seen_again"] * 3]


def test_tokens_of_different_stores_do_not_meet(
    engine: Engine, known: Known, seen_at: SeenAt, add_scan: AddScan
) -> None:
    with engine.begin() as connection:
        scan = add_scan(connection)
        find(connection, scan, seen_at(1), known(store="one"))
        find(connection, scan, seen_at(2), known(store="two"))
        find(connection, scan, seen_at(3), known(2, store="two"))
        find(connection, scan, seen_at(4), known(store="one"))
        find(connection, scan, seen_at(5), known(store="two"))
    assert sorted((row.store, row.token_id, row.sightings) for row in rows(engine, table)) == [
        ("one", "t-1", 2), ("two", "t-1", 2), ("two", "t-2", 1),
    ]  # fmt: skip


def test_the_same_place_again_is_nothing_new(
    engine: Engine, known: Known, seen_at: SeenAt, add_scan: AddScan
) -> None:
    place = seen_at()
    with engine.begin() as connection:
        for body in ("1", "2"):
            find(connection, add_scan(connection, body=body), place, known())
    (incident,) = rows(engine, table)
    assert (incident.sightings, len(rows(engine))) == (1, 1)
    assert actions(engine) == ["leak.found"]


def test_two_that_find_it_at_once_open_one_incident(
    engine: Engine,
    connect: Callable[[], Engine],
    at_once: Callable[..., list[Any]],
    known: Known,
    seen_at: SeenAt,
    add_scan: AddScan,
) -> None:
    engines = [connect() for _ in range(4)]
    found = [seen_at(number) for number in range(4)]

    def work(number: int) -> None:
        with engines[number].begin() as connection:
            find(connection, add_scan(connection, body=str(number)), found[number], known())

    at_once(*(lambda number=number: work(number) for number in range(4)))
    (incident,) = rows(engine, table)
    assert incident.sightings == 4
    assert actions(engine) == ["leak.found", *["leak.seen_again"] * 3]


def test_a_finding_vanishes_with_its_verdict(
    engine: Engine, known: Known, seen_at: SeenAt, add_scan: AddScan
) -> None:
    with engine.connect() as connection:
        find(connection, add_scan(connection), seen_at(), known())
        connection.rollback()
    assert rows(engine) == rows(engine, table) == rows(engine, audit_events) == []


def test_what_the_store_does_not_know_is_kept_as_a_fingerprint(
    engine: Engine, seen_at: SeenAt, add_scan: AddScan, new_secret: Callable[[], Secret]
) -> None:
    secret = new_secret()
    with engine.begin() as connection:
        scan = add_scan(connection)
        find(connection, scan, seen_at(1, secret), UNKNOWN)
        find(connection, scan, seen_at(2, secret), UNKNOWN)
        find(connection, scan, seen_at(2, secret), UNKNOWN)
    one, two = rows(engine)
    assert one.incident_id is two.incident_id is None
    assert one.fingerprint == two.fingerprint
    assert (one.fingerprint_key, one.validity) == ("f1", "never_issued")
    assert rows(engine, table) == rows(engine, audit_events) == []


def test_a_place_is_news_once_and_once_more_when_it_joins(
    engine: Engine, known: Known, seen_at: SeenAt, add_scan: AddScan
) -> None:
    place = seen_at()
    with engine.begin() as connection:
        scan = add_scan(connection)
        incident_id, _ = incidents.open_incident(connection, known(), scan["id"])

        def add() -> bool:
            return incidents.add_sighting(
                connection, incident_id=incident_id, scan=scan, found=place, lookup=known(),
                path="a.env", key=KEY,
            )  # fmt: skip

        find(connection, scan, place, UNKNOWN)
        assert [add(), add()] == [True, False]
        find(connection, scan, place, UNKNOWN)
    (row,) = rows(engine)
    assert (row.incident_id, row.validity) == (incident_id, "active")


def test_a_place_whose_token_is_known_only_later_joins_its_incident(
    engine: Engine, known: Known, seen_at: SeenAt, add_scan: AddScan
) -> None:
    place = seen_at()
    with engine.begin() as connection:
        find(connection, add_scan(connection, body="1"), place, UNKNOWN)
    with engine.begin() as connection:
        scan = add_scan(connection, body="2")
        find(connection, scan, place, known())
        find(connection, scan, place, known())
    (incident,) = rows(engine, table)
    (sighting,) = rows(engine)
    assert (sighting.incident_id, sighting.validity) == (incident.id, "active")
    assert incident.sightings == 1
    assert actions(engine) == ["leak.found"]
    with engine.begin() as connection:  # nor does it leave it again
        find(connection, add_scan(connection, body="3"), place, UNKNOWN)
    assert rows(engine) == [sighting]


def test_sightings_are_capped_as_rows_then_counted(
    engine: Engine, known: Known, seen_at: SeenAt, add_scan: AddScan, new_secret: Any
) -> None:
    secret = new_secret()
    with engine.begin() as connection:
        scan = add_scan(connection)
        for number in range(1_000):
            find(connection, scan, seen_at(number, secret), known())
    assert (rows(engine, table)[0].sightings, len(rows(engine))) == (1_000, 1_000)
    events = len(rows(engine, audit_events))
    with engine.begin() as connection:
        for number in (1_000, 1_001):
            find(connection, scan, seen_at(number, secret), known())
        find(connection, scan, seen_at(7, secret), known())  # a place that is known
        find(connection, scan, seen_at(1_002), known(2))  # another token's first
    first, second = sorted(rows(engine, table), key=lambda row: str(row.token_id))
    assert (first.sightings, second.sightings) == (1_002, 1)
    assert len(rows(engine)) == 1_001
    assert len(rows(engine, audit_events)) == events + 1
    with reader(engine).connect() as connection:
        places, total = incidents.list_sightings(connection, first.id, 10)
    assert (len(places), total) == (10, 1_002)


def test_only_a_proved_token_opens_an_incident(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(ValueError, match="proved"):
        incidents.open_incident(connection, UNKNOWN, "scan")


def test_the_newest_generation_gets_the_sighting(
    engine: Engine, known: Known, add_scan: AddScan
) -> None:
    with engine.begin() as connection:
        scan = add_scan(connection)
        first, is_new = incidents.open_incident(connection, known(), scan["id"])
        assert is_new
        row = connection.execute(select(table)).mappings().one()
        connection.execute(insert(table).values({**row, "id": "later", "generation": 2}))
        assert incidents.open_incident(connection, known(), scan["id"]) == ("later", False)
        assert first != "later"
        assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 2


def test_a_fingerprint_needs_its_key_and_names_the_pattern(new_secret: Any) -> None:
    secret, other = new_secret(), new_secret()
    one = fingerprint(KEY, "a", secret)
    assert one == fingerprint(Key("f2", KEY.value), "a", Secret(secret.reveal()))
    different = {
        one,
        fingerprint(Key("f1", b"another-key"), "a", secret),
        fingerprint(KEY, "b", secret),
        fingerprint(KEY, "a", other),
    }
    assert len(different) == 4
    assert all(len(value) == 64 for value in different)
    # The pattern's end and the secret's begin cannot be mistaken for one another.
    split = {fingerprint(KEY, "ab", Secret(b"c")), fingerprint(
        KEY, "a", Secret(b"bc"))}  # fmt: skip
    assert len(split) == 2


def test_places_are_told_as_people_need_them(
    engine: Engine, known: Known, seen_at: SeenAt, add_scan: AddScan
) -> None:
    found = seen_at()
    outside = LocatedCandidate(
        seen_at(1).candidate, Place("d" * 40, found.place.kind, None, line=3, column=9)
    )
    with engine.begin() as connection:
        scan = add_scan(connection)
        find(connection, scan, found, known(), path="deploy/a.env")
        find(connection, scan, outside, known(), path="")
        (incident,) = incidents.list_incidents(connection)
        places, total = incidents.list_sightings(connection, incident["id"])
        assert incidents.list_sightings(connection, "nobody") == ([], 0)
        assert incidents.list_incidents(connection, "nobody") == []
    assert total == 2
    assert (incident["token"], incident["owner"], incident["work"]) == ("deploy", "Ada", "pending")
    by_path = {place["path"]: place for place in places}
    assert set(by_path) == {"deploy/a.env", None}
    assert by_path["deploy/a.env"]["repository"] == "acme/app"
    commit = "c" * 40
    assert by_path["deploy/a.env"]["url"] == f"https://github.example/acme/app/commit/{commit}"
    assert (by_path[None]["commit"], by_path[None]["url"]) == (None, None)
    assert (by_path[None]["line"], by_path[None]["column"]) == (3, 9)


def test_a_path_that_is_no_text_is_stored_all_the_same(
    engine: Engine, known: Known, seen_at: SeenAt, add_scan: AddScan
) -> None:
    with engine.begin() as connection:
        path = b"caf\xe9/".decode("utf-8", "surrogateescape") + "x" * 2_000
        find(connection, add_scan(connection), seen_at(), known(), path=path)
    (sighting,) = rows(engine)
    assert sighting.path.startswith("caf\\udce9/xxx")
    assert len(sighting.path) == 1_000
