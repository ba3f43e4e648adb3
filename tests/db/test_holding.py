"""Claims that end together: each only for its owner, and nobody waits in a circle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, insert, select, update

from scanner.db import holding, leases, scans
from scanner.db.clock import ServerClock, now_ms
from scanner.db.engine import reader
from scanner.db.leases import Claim, Patience
from scanner.db.schema import outbox, scanned_heads
from tests.databases import on_postgresql

PATIENCE = Patience(lease_ms=60_000, max_attempts=3, max_retries=2)
MANY = 64


def claim(engine: Engine, count: int, *, suspect: bool = False) -> list[Claim]:
    with engine.begin() as connection:
        return leases.claim(connection, outbox, PATIENCE, limit=count, suspect=suspect)[0]


def claims_of(engine: Engine, count: int) -> list[Claim]:
    """Make rows, and claim them."""
    with engine.begin() as connection:
        for number in range(count):
            connection.execute(
                insert(outbox).values(
                    id=f"row-{number:03}", kind="leak", dedupe=str(number), notice={},
                    created_at=0, state=leases.PENDING, available_at=0,
                )
            )  # fmt: skip
    return claim(engine, count)


def rows(engine: Engine) -> dict[str, Any]:
    with reader(engine).connect() as connection:
        return {row.id: row for row in connection.execute(select(outbox).order_by(outbox.c.id))}


def end(engine: Engine, held: list[Claim], subject: str) -> set[str]:
    with engine.begin() as connection:
        kept = holding.hold(connection, outbox, held)
        ends = {row: {"state": leases.DONE, "subject": f"{subject} {row}"} for row in kept}
        holding.finish_held(connection, outbox, ends)
    return kept


def test_each_gets_its_own_end(engine: Engine) -> None:
    held = claims_of(engine, 3)
    with engine.begin() as connection:
        holding.finish_held(connection, outbox, {})
    assert end(engine, held[:2], "first") == {"row-000", "row-001"}
    assert [(row.state, row.subject, row.lease_until) for row in rows(engine).values()][:2] == [
        (leases.DONE, "first row-000", None), (leases.DONE, "first row-001", None),
    ]  # fmt: skip
    assert rows(engine)["row-002"].state == leases.RUNNING
    assert end(engine, held, "second") == {"row-002"}
    assert rows(engine)["row-000"].subject == "first row-000"


def test_what_another_took_is_his(engine: Engine) -> None:
    held = claims_of(engine, 3)
    with engine.begin() as connection:
        connection.execute(update(outbox).where(outbox.c.id == "row-001").values(lease_until=0))
    (theirs,) = claim(engine, 1, suspect=True)
    assert holding.renew(engine, outbox, held, PATIENCE) == 2
    assert end(engine, held, "late") == {"row-000", "row-002"}
    assert (rows(engine)["row-001"].state, rows(engine)["row-001"].subject) == ("running", None)
    assert end(engine, [theirs], "theirs") == {"row-001"}


@on_postgresql
def test_nobody_takes_what_is_held(engine: Engine, connect: Callable[[], Engine]) -> None:
    held = claims_of(engine, 2)
    with engine.begin() as connection:
        connection.execute(update(outbox).values(lease_until=0))  # we were slow
        assert len(holding.hold(connection, outbox, held)) == 2
        connection.execute(update(outbox).values(lease_until=0))
        assert claim(connect(), 1, suspect=True) == []


def test_who_renews_and_who_ends_do_not_wait_for_each_other(
    engine: Engine, connect: Callable[[], Engine], at_once: Callable[..., list[Any]]
) -> None:
    """The same rows in opposite orders, again and again."""
    held = claims_of(engine, MANY)
    other, ended = connect(), threading.Event()

    def renew() -> int:
        rounds = 0
        while not ended.is_set():
            holding.renew(other, outbox, held[::-1], PATIENCE)
            rounds += 1
        return rounds

    def work() -> int:
        try:
            for _ in range(40):
                with engine.begin() as connection:
                    kept = holding.hold(connection, outbox, held)
                    ends = {row: {"state": leases.RUNNING, "subject": "again"} for row in kept}
                    holding.finish_held(connection, outbox, ends)
            return len(end(engine, held, "done"))
        finally:
            ended.set()

    rounds, done = at_once(renew, work)
    assert rounds > 0
    assert done == MANY
    assert {row.state for row in rows(engine).values()} == {leases.DONE}


def test_heads_are_the_newest_of_each_repository(
    engine: Engine, add_scan: Callable[..., dict[str, Any]]
) -> None:
    with engine.begin() as connection:
        ids = [add_scan(connection, f"acme/r{n}")["repository_id"] for n in range(3)]
        scans.remember_heads(connection, "rules", [(ids[0], "a" * 40), (ids[0], "b" * 40)])
        scans.remember_heads(connection, "others", [(ids[1], "c" * 40)])
        scans.remember_heads(connection, "rules", [])
        newer = scanned_heads.c.object_id == "b" * 40
        connection.execute(update(scanned_heads).where(newer).values(scanned_at=1 << 50))
        connection.execute(
            insert(scanned_heads),
            [
                {"repository_id": ids[2], "ruleset": "rules", "object_id": f"{n:040}",
                 "scanned_at": n}
                for n in range(300)
            ],
        )  # fmt: skip
    with reader(engine).connect() as connection:
        known = scans.known_repositories(connection, ids, "rules")
    assert [(one.host, one.name) for one in map(known.get, ids) if one] == [
        ("https://github.example", f"acme/r{n}") for n in range(3)
    ]
    assert known[ids[0]].heads == ("b" * 40, "a" * 40)
    assert known[ids[1]].heads == ()
    assert known[ids[2]].heads == tuple(f"{n:040}" for n in range(299, 43, -1))


def test_a_head_that_was_read_again_is_new_again(
    engine: Engine, add_scan: Callable[..., dict[str, Any]]
) -> None:
    with engine.begin() as connection:
        repository = add_scan(connection)["repository_id"]
        scans.remember_heads(connection, "rules", [(repository, "a"), (repository, "b")])
        connection.execute(update(scanned_heads).values(scanned_at=1))
        scans.remember_heads(connection, "rules", [(repository, "a"), (repository, "a")])
        known = scans.known_repositories(connection, {repository}, "rules")
    assert known[repository].heads == ("a", "b")


def test_the_servers_clock_goes_on_between_questions(engine: Engine) -> None:
    with reader(engine).connect() as connection:
        before = now_ms(connection)
        clock = ServerClock(connection)
        first = clock.now()
        threading.Event().wait(0.05)
        second = clock.now()
        after = now_ms(connection)
    assert before <= first < second <= after + 1
    assert second - first >= 50
