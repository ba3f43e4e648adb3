"""Alarms that a fault would raise a thousand times: the first goes out at once, the next after an
hour, and says how many there are by then.

What is counted is read when the mail is sent, not when the alarm was raised: an operator who reads
it should see what there is to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Table, case, func, select

from scanner.db.clock import now_in
from scanner.db.dialect import upsert
from scanner.db.leases import PARKED, PENDING
from scanner.db.outbox import alarm
from scanner.db.schema import alarm_turns, incidents, outbox, scans, sealed_candidates

HOUR_MS = 3_600_000
_RETRY = "Mend the cause (patrol doctor shows it), then run: patrol doctor --retry"


class Topic(StrEnum):
    """What an alarm is about; one of each goes out in an hour."""

    PARKED_SCANS = "parked-scans"
    PARKED_RESPONSES = "parked-responses"
    PARKED_TOKENS = "parked-tokens"
    REFUSED_MAILS = "refused-mails"
    HELD_UP = "held-up"


@dataclass(frozen=True, slots=True)
class _About:
    table: Table
    state: str
    one: str  # "1 scan is parked"
    many: str  # "{} scans are parked"
    what_to_do: str
    least_retries: int = 0  # of what is counted


HELD_UP_RETRIES = 5  # about half a minute of trying
_REMIND_EVERY = 24  # tries, which are an hour apart by then

_ABOUT = {
    Topic.PARKED_SCANS: _About(
        scans, PARKED, "A scan has stopped", "{} scans have stopped", _RETRY
    ),
    Topic.PARKED_RESPONSES: _About(
        incidents, PARKED, "The response to a leaked token has stopped",
        "The responses to {} leaked tokens have stopped", _RETRY,
    ),
    Topic.PARKED_TOKENS: _About(
        sealed_candidates, PARKED, "A leaked token waits for its proof, and the asking has stopped",
        "{} leaked tokens wait for their proof, and the asking has stopped", _RETRY,
    ),
    Topic.REFUSED_MAILS: _About(
        outbox, PARKED, "A mail was refused for good", "{} mails were refused for good",
        "See patrol leaks list; tell their owners in another way, or mend the addresses and run: "
        "patrol doctor --retry",
    ),
    Topic.HELD_UP: _About(
        incidents, PENDING, "A leaked token is not revoked yet",
        "{} leaked tokens are not revoked yet",
        "Look at the token store (patrol doctor); each is tried again within the hour.",
        least_retries=HELD_UP_RETRIES,
    ),
}  # fmt: skip


def raise_alarm(
    connection: Connection, topic: Topic, example: str, incident_id: str | None = None
) -> None:
    """Tell the operator, in the caller's transaction, unless a mail that waits will.

    `example` is a sentence about the row at hand; `incident_id` is its incident.
    """
    due = _turn(connection, topic)
    if due is None:
        return
    alarm(
        connection,
        dedupe=f"{topic.value}:{due}",
        title=_ABOUT[topic].one,
        explanation=example,
        what_to_do=_ABOUT[topic].what_to_do,
        incident_id=incident_id,
        topic=topic.value,
        available_at=due,
    )


def must_remind(retries: int) -> bool:
    """True of the number of tries after which a response counts as held up, and then once a day."""
    return retries >= HELD_UP_RETRIES and (retries - HELD_UP_RETRIES) % _REMIND_EVERY == 0


def as_of_now(
    connection: Connection, notice: Mapping[str, Any], context: Mapping[str, Any]
) -> dict[str, Any]:
    """The context of an alarm that is about to be sent, with what there is by now."""
    if "topic" not in notice:
        return dict(context)
    about = _ABOUT[Topic(notice["topic"])]
    count = connection.execute(_counted(about)).scalar_one()
    said = context["explanation"]
    if count == 0:
        said += " Since then it has gone on by itself, or was put back to work."
    elif count > 1:
        said += f" So it is with {count} in all."
    title = about.many.format(count) if count > 1 else about.one
    return {**context, "title": title, "explanation": said}


def _turn(connection: Connection, topic: Topic) -> int | None:
    """When the next mail of this topic is due: now, or an hour after the last; None: one waits."""
    now = now_in(connection)
    last = alarm_turns.c.due_at
    statement = (
        upsert(connection, alarm_turns)
        .values(topic=topic.value, due_at=now)
        .on_conflict_do_update(
            index_elements=["topic"],
            set_={"due_at": case((last + HOUR_MS <= now, now), else_=last + HOUR_MS)},
            where=last <= now,
        )
        .returning(last)
    )
    due: int | None = connection.execute(statement).scalar_one_or_none()
    return due


def _counted(about: _About) -> Any:
    table = about.table
    query = select(func.count()).select_from(table).where(table.c.state == about.state)
    if about.least_retries:
        query = query.where(table.c.retries >= about.least_retries)
    if table is outbox:  # an alarm that was refused cannot be told of by another
        query = query.where(table.c.kind != "alarm")
    return query
