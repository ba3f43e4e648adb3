"""The watch list: a due time becomes one scan, once, whoever beats and however late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, update

from scanner.db.clock import now_ms
from scanner.db.engine import reader
from scanner.db.scans import accept_due_watches, request_watch_scan
from scanner.db.schema import audit_events, scans, watches
from scanner.db.watches import add_watch, list_watches, remove_watch, run_watch_now
from scanner.errors import FinalError

HOST, NAME = "https://github.example", "acme/app"
EVERY = 3_600_000


@pytest.fixture
def watch(engine: Engine) -> str:
    with engine.begin() as connection:
        return add_watch(connection, HOST, NAME, EVERY / 1000, "ada")


def scans_of(engine: Engine) -> list[Any]:
    with reader(engine).connect() as connection:
        return list(connection.execute(select(scans).order_by(scans.c.due_at)))


def next_due(connection: Connection) -> int:
    return connection.execute(select(watches.c.next_due)).scalar_one()


def beat(engine: Engine) -> int:
    with engine.begin() as connection:
        return accept_due_watches(connection)


def test_the_first_scan_is_due_at_once(engine: Engine, watch: str) -> None:
    with reader(engine).connect() as connection:
        due = next_due(connection)
    assert beat(engine) == 1
    (scan,) = scans_of(engine)
    assert (scan.source, scan.watch_id, scan.due_at) == ("watch", watch, due)
    assert (scan.state, scan.ref, scan.after, scan.forced) == ("pending", None, None, False)
    assert scan.available_at >= due
    with reader(engine).connect() as connection:
        assert next_due(connection) == due + EVERY
    assert beat(engine) == 0
    assert len(scans_of(engine)) == 1


@pytest.mark.parametrize(
    ("late", "rounds"), [(0, 1), (EVERY - 60_000, 1), (EVERY, 2), (5 * EVERY + 60_000, 6)]
)
@pytest.mark.usefixtures("watch")
def test_missed_rounds_are_one_late_round_on_the_same_grid(
    engine: Engine, late: int, rounds: int
) -> None:
    with engine.begin() as connection:
        due = now_ms(connection) - late
        connection.execute(update(watches).values(next_due=due))
    assert beat(engine) == 1
    assert [scan.due_at for scan in scans_of(engine)] == [due]
    with reader(engine).connect() as connection:
        assert next_due(connection) == due + rounds * EVERY > now_ms(connection)


@pytest.mark.usefixtures("watch")
def test_what_is_not_due_is_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(update(watches).values(next_due=now_ms(connection) + 60_000))
    assert beat(engine) == 0
    assert scans_of(engine) == []


@pytest.mark.usefixtures("watch")
def test_beats_at_once_make_one_scan(
    engine: Engine, connect: Callable[[], Engine], at_once: Callable[..., list[Any]]
) -> None:
    engines = [connect() for _ in range(4)]
    assert sorted(at_once(*(lambda e=e: beat(e) for e in engines))) == [0, 0, 0, 1]
    assert len(scans_of(engine)) == 1


def test_a_due_time_is_a_scan_once(engine: Engine, watch: str) -> None:
    with engine.begin() as connection:
        repository = connection.execute(select(watches.c.repository_id)).scalar_one()
        first = request_watch_scan(connection, watch, repository, 7)
        assert first is not None
        assert request_watch_scan(connection, watch, repository, 7) is None
        assert request_watch_scan(connection, watch, repository, 8) not in (None, first)
    assert [scan.due_at for scan in scans_of(engine)] == [7, 8]


def test_a_beat_that_fails_leaves_the_round_due(engine: Engine, watch: str) -> None:
    with engine.connect() as connection:
        assert accept_due_watches(connection) == 1
        connection.rollback()
    assert scans_of(engine) == []
    assert beat(engine) == 1
    assert [scan.watch_id for scan in scans_of(engine)] == [watch]


def test_behind_a_scan_that_has_not_ended_no_round_piles_up(engine: Engine, watch: str) -> None:
    beat(engine)
    for state in ("pending", "running"):
        with engine.begin() as connection:
            connection.execute(update(scans).values(state=state))
            connection.execute(update(watches).values(next_due=1))
        beat(engine)
        assert len(scans_of(engine)) == 1
        with reader(engine).connect() as connection:
            assert next_due(connection) > now_ms(connection)
    with engine.begin() as connection:
        connection.execute(update(scans).values(state="done"))
        connection.execute(update(watches).values(next_due=1))
    beat(engine)
    assert [scan.state for scan in scans_of(engine)] == ["pending", "done"]


def test_run_now_is_outside_the_schedule(engine: Engine, watch: str) -> None:
    with engine.begin() as connection:
        connection.execute(update(watches).values(next_due=now_ms(connection) + EVERY))
        due = next_due(connection)
        scan_id = run_watch_now(connection, NAME)
        assert next_due(connection) == due
    (scan,) = scans_of(engine)
    assert (scan.id, scan.watch_id, scan.state) == (scan_id, watch, "pending")


@pytest.mark.usefixtures("watch")
def test_removed_it_is_scanned_no_more_and_what_was_found_stays(engine: Engine) -> None:
    assert beat(engine) == 1
    with engine.begin() as connection:
        remove_watch(connection, NAME, "bob")
        assert list_watches(connection) == []
    assert beat(engine) == 0
    assert len(scans_of(engine)) == 1
    for act in (
        lambda connection: remove_watch(connection, NAME, "bob"),
        lambda connection: run_watch_now(connection, NAME),
    ):
        with engine.begin() as connection, pytest.raises(FinalError, match="not on the watch"):
            act(connection)
    with engine.begin() as connection:
        add_watch(connection, HOST, NAME, 60, "ada")
    assert beat(engine) == 1
    with reader(engine).connect() as connection:
        events = connection.execute(select(audit_events.c.action, audit_events.c.actor)).all()
    assert sorted(map(tuple, events)) == [
        ("watch.added", "ada"), ("watch.added", "ada"), ("watch.removed", "bob"),
    ]  # fmt: skip


@pytest.mark.usefixtures("watch")
def test_a_repository_is_watched_once(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(FinalError, match="watched already"):
        add_watch(connection, HOST, NAME, 60, "ada")


@pytest.mark.usefixtures("watch")
def test_a_name_on_two_hosts_is_not_guessed_at(engine: Engine) -> None:
    with engine.begin() as connection:
        add_watch(connection, "https://git.acme.example", NAME, 60, "ada")
        assert len(list_watches(connection)) == 2
        with pytest.raises(FinalError, match="on 2 hosts; give --host"):
            remove_watch(connection, NAME, "ada")
        assert len(list_watches(connection)) == 2
        remove_watch(connection, NAME, "ada", host=HOST)
        assert [row["host"] for row in list_watches(connection)] == ["https://git.acme.example"]


def test_a_schedule_without_a_pause_is_refused(engine: Engine) -> None:
    """It would divide by nothing, and no watch would ever be due again."""
    for every in (0, -60, 0.0004):
        with engine.begin() as connection, pytest.raises(FinalError, match="at least"):
            add_watch(connection, HOST, NAME, every, "ada")


def test_the_list_is_for_people(engine: Engine) -> None:
    with engine.begin() as connection:
        for name in ("b/b", "a/a"):
            add_watch(connection, HOST, name, 90, "ada")
        rows = list_watches(connection)
    assert [row["repository"] for row in rows] == ["a/a", "b/b"]
    assert {row["every_seconds"] for row in rows} == {90}
    assert all(row["next_due"].endswith("Z") for row in rows)
