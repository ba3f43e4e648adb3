"""Alarms in turns: the first at once, then one an hour, which counts what there is when it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, select, update

from notifier.notice import Notice
from scanner.db import alarms
from scanner.db.alarms import DAY_MS, HOUR_MS, Topic
from scanner.db.clock import now_ms
from scanner.db.engine import reader
from scanner.db.schema import alarm_turns, outbox


def ring(engine: Engine, topic: Topic = Topic.PARKED_SCANS, example: str = "Scan x: no.") -> None:
    with engine.begin() as connection:
        alarms.raise_alarm(connection, topic, example)


def mails(engine: Engine) -> list[Any]:
    with reader(engine).connect() as connection:
        rows = connection.execute(select(outbox).order_by(outbox.c.available_at))
        return list(rows.mappings())


def pass_time(engine: Engine, milliseconds: int) -> None:
    with engine.begin() as connection:
        connection.execute(update(alarm_turns).values(due_at=alarm_turns.c.due_at - milliseconds))


def now(engine: Engine) -> int:
    with reader(engine).connect() as connection:
        return now_ms(connection)


def test_a_thousand_faults_are_a_mail_at_once_and_one_an_hour_later(engine: Engine) -> None:
    began = now(engine)
    for number in range(1_000):
        ring(engine, example=f"Scan {number}: no.")
    first, second = mails(engine)
    assert began <= first["available_at"] <= now(engine)
    assert second["available_at"] == first["available_at"] + HOUR_MS
    assert first["notice"]["context"]["explanation"] == "Scan 0: no."
    for hour in (1, 2):  # one mail has gone, another waits
        pass_time(engine, HOUR_MS + 1)
        for _ in range(10):
            ring(engine)
        assert len(mails(engine)) == 2 + hour


def test_after_a_quiet_hour_the_next_goes_at_once(engine: Engine) -> None:
    ring(engine)
    pass_time(engine, HOUR_MS + 1_000)
    began = now(engine)
    ring(engine)
    _, second = mails(engine)
    assert began <= second["available_at"] <= now(engine)


def test_each_topic_has_its_turns(engine: Engine) -> None:
    for topic in Topic:
        ring(engine, topic)
    assert len(mails(engine)) == len(Topic)
    for row in mails(engine):
        stored = row["notice"]
        with reader(engine).connect() as connection:
            context = alarms.as_of_now(connection, stored, stored["context"])
        notice = {"kind": "alarm", "to": "a@b.example", "message_id": "<x@y>", "context": context}
        assert Notice.from_json(notice).context["title"]


def test_what_is_rolled_back_takes_no_turn(engine: Engine) -> None:
    with engine.connect() as connection, connection.begin() as transaction:
        alarms.raise_alarm(connection, Topic.HELD_UP, "x")
        transaction.rollback()
    assert mails(engine) == []
    ring(engine, Topic.HELD_UP)
    assert len(mails(engine)) == 1


def test_processes_that_meet_the_same_fault_raise_one_alarm(
    connect: Callable[[], Engine], at_once: Callable[..., list[Any]]
) -> None:
    engines = [connect() for _ in range(6)]
    at_once(*[lambda engine=engine: ring(engine) for engine in engines])
    first, second = mails(engines[0])
    assert second["available_at"] == first["available_at"] + HOUR_MS


def test_of_what_lasts_there_is_a_reminder_once_a_day(engine: Engine) -> None:
    began = now(engine)

    def remind(since: int = began) -> None:
        with engine.begin() as connection:
            alarms.raise_alarm(connection, Topic.HELD_UP, "x", since=since)

    remind()
    for _ in range(23):  # nobody told of it before; then it was told
        remind(now(engine) - DAY_MS)
        assert len(mails(engine)) == 1
        pass_time(engine, HOUR_MS)
    pass_time(engine, HOUR_MS + 1_000)
    remind(now(engine) - 2 * DAY_MS)
    remind(now(engine) - 2 * DAY_MS)
    first, second = mails(engine)
    assert second["available_at"] <= now(engine)
    assert first["id"] != second["id"]


def test_what_is_new_does_not_wait_for_the_day(engine: Engine) -> None:
    with engine.begin() as connection:
        alarms.raise_alarm(connection, Topic.HELD_UP, "x", since=now_ms(connection))
    pass_time(engine, HOUR_MS + 1_000)
    began = now(engine)
    with engine.begin() as connection:
        alarms.raise_alarm(connection, Topic.HELD_UP, "y", since=began)
    _, second = mails(engine)
    assert began <= second["available_at"] <= now(engine)
