"""A revocation that cannot be made is never given up; the operator hears of it soon, then daily."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update

from scanner.db import freezes
from scanner.db.schema import alarm_turns, outbox

_STEP = 600_000  # milliseconds between the tries of these tests
_DAY_OF_TRIES = 144


def away(desk) -> None:
    desk.store.is_available = False


def frozen(desk) -> None:
    with desk.engine.begin() as connection:
        freezes.freeze(connection, desk.store.name, "it lies")


def try_again(desk) -> None:
    desk.let_time_pass()
    with desk.engine.begin() as connection:
        connection.execute(update(alarm_turns).values(due_at=alarm_turns.c.due_at - _STEP))
    assert desk.respond()


def told(desk) -> list[str]:
    return [
        row["notice"]["context"]["explanation"]
        for row in desk.rows(outbox)
        if row["notice"].get("topic") == "held-up"
    ]


@pytest.mark.parametrize("fault", [away, frozen])
def test_a_day_of_tries_is_two_mails_at_most(desk, fault: Callable) -> None:
    secret, _ = desk.issue()
    incident_id = desk.leak(secret)
    fault(desk)
    for tries in range(1, _DAY_OF_TRIES + 2):
        try_again(desk)
        if tries < 5:
            assert told(desk) == []
        elif tries < _DAY_OF_TRIES:
            assert len(told(desk)) == 1
    assert 1 <= len(told(desk)) <= 2
    assert told(desk)[0].startswith(f"Incident {incident_id}: ")
    for _ in range(10):
        try_again(desk)
    assert len(told(desk)) == 2  # the next day's


@pytest.mark.parametrize("fault", [away, frozen])
def test_one_that_comes_later_is_told_within_the_hour(desk, fault: Callable) -> None:
    for _ in range(2):
        desk.store.is_available = True
        desk.leak(desk.issue()[0])
        fault(desk)
        for _ in range(7):
            try_again(desk)
    assert len(told(desk)) == 2


def test_the_mail_says_how_many_there_are_when_it_goes(desk) -> None:
    for _ in range(3):
        desk.leak(desk.issue()[0])
    away(desk)
    for _ in range(6):
        try_again(desk)
    assert desk.deliver()
    (mail, *_) = desk.delivered
    assert mail.notice.context["title"] == "3 leaked tokens are not revoked yet"
    assert "every minute" in mail.notice.context["what_to_do"]
    assert "within the hour" not in mail.notice.context["what_to_do"]
