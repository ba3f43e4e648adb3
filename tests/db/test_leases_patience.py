"""Patience: how long a row waits for its next try, and when it is parked and shown instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, insert, select, update

from scanner.db import leases
from scanner.db.clock import now_ms
from scanner.db.engine import reader
from scanner.db.leases import Claim, Patience
from scanner.db.schema import outbox
from scanner.db.work import taken

PATIENCE = Patience(lease_ms=60_000, max_attempts=3, max_retries=2)
FOR_EVER = Patience(lease_ms=60_000, max_attempts=3, max_retries=None)
DOUBLING = [1_000 * 2**tries for tries in range(12)]
HOUR = 3_600_000


@pytest.fixture(autouse=True)
def row(engine: Engine) -> str:
    with engine.begin() as connection:
        connection.execute(
            insert(outbox).values(
                id="a", kind="leak", dedupe="a", notice={}, created_at=0,
                state=leases.PENDING, available_at=0,
            )
        )  # fmt: skip
    return "a"


@pytest.fixture
def look(engine: Engine, row: str) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        with reader(engine).connect() as connection:
            return dict(
                connection.execute(select(outbox).where(outbox.c.id == row)).mappings().one()
            )

    return read


def take(connection: Connection, patience: Patience = PATIENCE) -> Claim:
    """Claim the one row there is, whatever its standing, as if its time had come."""
    connection.execute(
        update(outbox).where(outbox.c.state == leases.PENDING).values(available_at=0)
    )
    for suspect in (False, True):
        claims, parked = leases.claim(connection, outbox, patience, limit=1, suspect=suspect)
        assert not parked
        if claims:
            return claims[0]
    pytest.fail("there was nothing to claim")


def die(engine: Engine, patience: Patience = PATIENCE) -> Claim:
    """A worker claims the row and is never heard of again."""
    with engine.begin() as connection:
        held = take(connection, patience)
    with engine.begin() as connection:
        connection.execute(update(outbox).values(lease_until=1))
    return held


def park(engine: Engine, patience: Patience = PATIENCE) -> list[dict[str, Any]]:
    """One more round: returns the rows that were parked in it."""
    parked: list[dict[str, Any]] = []

    def on_parked(_connection: Connection, row: Any) -> None:
        parked.append(dict(row))

    with taken(engine, outbox, patience, limit=9, on_parked=on_parked) as work:
        assert (work.claims, bool(work.found)) == ([], True) if parked else ((), False)
    return parked


def waits(engine: Engine, patience: Patience, rounds: int, *, blame: bool) -> list[int]:
    """How long the row is put off, time after time."""
    seen = []
    with engine.begin() as connection:
        for _ in range(rounds):
            held = take(connection, patience)
            before = now_ms(connection)
            released = leases.release(connection, outbox, held, "x", patience, blame=blame)
            assert released == leases.PENDING
            after = now_ms(connection)
            at = connection.execute(select(outbox.c.available_at)).scalar_one()
            nearest = min([*DOUBLING, HOUR], key=lambda wait: abs(at - before - wait))
            assert before + nearest <= at <= after + nearest
            seen.append(nearest)
    return seen


def test_the_wait_doubles_up_to_an_hour(engine: Engine) -> None:
    assert waits(engine, FOR_EVER, 40, blame=False) == [*DOUBLING, *[HOUR] * 28]


def test_a_row_that_is_to_blame_waits_longer_each_time_as_well(engine: Engine) -> None:
    patient = Patience(lease_ms=60_000, max_attempts=40, max_retries=0)
    assert waits(engine, patient, 40, blame=True) == [*DOUBLING, *[HOUR] * 28]


def test_both_counts_make_it_wait(engine: Engine) -> None:
    assert waits(engine, FOR_EVER, 3, blame=False) == DOUBLING[:3]
    assert waits(engine, FOR_EVER, 2, blame=True) == DOUBLING[3:5]


def test_an_orderly_return_takes_the_attempt_back(
    engine: Engine, look: Callable[[], dict[str, Any]]
) -> None:
    die(engine)
    with engine.begin() as connection:
        held = take(connection)
        assert held.attempts == 2
        leases.release(connection, outbox, held, "the host is away", PATIENCE)
    row = look()
    assert (row["state"], row["attempts"], row["retries"]) == (leases.PENDING, 0, 1)
    assert (row["lease_until"], row["error"]) == (None, "the host is away")


def test_a_return_with_blame_keeps_the_attempt(
    engine: Engine, look: Callable[[], dict[str, Any]]
) -> None:
    with engine.begin() as connection:
        leases.release(connection, outbox, take(connection), "it broke", PATIENCE, blame=True)
    row = look()
    assert (row["state"], row["attempts"], row["retries"]) == (leases.PENDING, 1, 0)


def test_a_long_error_is_cut_to_its_column(
    engine: Engine, look: Callable[[], dict[str, Any]]
) -> None:
    with engine.begin() as connection:
        leases.release(connection, outbox, take(connection), "x" * 501, PATIENCE)
    assert look()["error"] == "x" * 500


@pytest.mark.parametrize("max_retries", [0, 2])
def test_parked_when_the_retries_are_used_up(
    engine: Engine, look: Callable[[], dict[str, Any]], max_retries: int
) -> None:
    patience = Patience(lease_ms=60_000, max_attempts=3, max_retries=max_retries)
    states = []
    for _ in range(max_retries + 1):
        with engine.begin() as connection:
            states.append(leases.release(connection, outbox, take(connection), "away", patience))
    assert states == [*[leases.PENDING] * max_retries, leases.PARKED]
    assert (look()["state"], look()["error"]) == (leases.PARKED, "away")


def test_without_a_bound_on_retries_nothing_is_parked(
    engine: Engine, look: Callable[[], dict[str, Any]]
) -> None:
    with engine.begin() as connection:
        for _ in range(300):
            held = take(connection, FOR_EVER)
            assert leases.release(connection, outbox, held, "x", FOR_EVER) == leases.PENDING
    assert (look()["state"], look()["retries"]) == (leases.PENDING, 300)


def test_parked_after_claims_that_never_came_back(
    engine: Engine, look: Callable[[], dict[str, Any]]
) -> None:
    for attempts in (1, 2, 3):
        last = die(engine)
        assert last.attempts == attempts
    (parked,) = park(engine)
    assert parked["error"] == "stopped without an answer 3 times"
    row = look()
    assert (row["state"], row["lease_until"]) == (leases.PARKED, None)
    assert row["error"] == parked["error"]
    with engine.begin() as connection:  # the last worker was only slow
        assert not leases.finish(connection, outbox, last, leases.DONE)
    assert park(engine) == []


def test_parked_for_what_it_was_blamed_for(engine: Engine) -> None:
    for number in (1, 2, 3):
        with engine.begin() as connection:
            held = take(connection)
            leases.release(connection, outbox, held, f"broke {number}", PATIENCE, blame=True)
    with engine.begin() as connection:
        connection.execute(update(outbox).values(available_at=0))
    assert [row["error"] for row in park(engine)] == ["broke 3"]


def test_an_older_error_is_not_the_reason(engine: Engine) -> None:
    with engine.begin() as connection:
        leases.release(connection, outbox, take(connection), "the host is away", PATIENCE)
    for _ in range(3):
        die(engine)
    assert [row["error"] for row in park(engine)] == ["stopped without an answer 3 times"]


def test_parking_and_what_it_causes_are_one_transaction(
    engine: Engine, look: Callable[[], dict[str, Any]]
) -> None:
    for _ in range(3):
        die(engine)
    before = look()

    def fail(connection: Connection, row: Any) -> None:
        assert row["state"] == leases.PARKED
        connection.execute(update(outbox).values(subject="told"))
        raise RuntimeError("no")

    def enter(on_parked: Callable[..., None]) -> None:
        with taken(engine, outbox, PATIENCE, limit=9, on_parked=on_parked) as work:
            assert (work.claims, bool(work.found)) == ([], True)

    with pytest.raises(RuntimeError, match="no"):
        enter(fail)
    assert look() == before

    def tell(connection: Connection, row: Any) -> None:
        connection.execute(update(outbox).where(outbox.c.id == row["id"]).values(subject="told"))

    enter(tell)
    assert (look()["state"], look()["subject"]) == (leases.PARKED, "told")


def test_what_was_parked_goes_back_to_work_as_new(
    engine: Engine, look: Callable[[], dict[str, Any]]
) -> None:
    with engine.begin() as connection:
        assert leases.retry_parked(connection, outbox) == 0
    for _ in range(3):
        die(engine)
    assert park(engine)
    fence = look()["fence"]
    with engine.begin() as connection:
        assert leases.retry_parked(connection, outbox) == 1
        assert leases.is_ready(connection, outbox)
    row = look()
    assert (row["state"], row["attempts"], row["retries"]) == (leases.PENDING, 0, 0)
    assert (row["error"], row["fence"]) == (None, fence)
    assert die(engine).attempts == 1


def test_only_what_is_parked_goes_back(engine: Engine, row: str) -> None:
    with engine.begin() as connection:
        leases.finish(connection, outbox, take(connection), leases.DONE)
        assert leases.retry_parked(connection, outbox) == 0
        done = select(func.count()).where(outbox.c.id == row, outbox.c.state == leases.DONE)
        assert connection.execute(done).scalar_one() == 1
