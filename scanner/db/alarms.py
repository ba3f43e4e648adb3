"""Alarms that a fault would raise a thousand times: the first goes out at once, the next after an
hour, and says how many there are by then. Of what lasts there is a reminder once a day.

What is counted is read when the mail is sent, not when the alarm was raised: an operator who reads
it should see what there is to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, case, func, or_, select, true

from scanner.db.clock import now_in, to_iso
from scanner.db.dialect import upsert
from scanner.db.leases import PARKED, PENDING, RUNNING
from scanner.db.outbox import alarm
from scanner.db.schema import alarm_turns, incidents, outbox, scans, sealed_candidates
from scanner.db.sealed import HELD, Cause, is_ending, newest_ending

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_RETRY = "Mend the cause (patrol doctor shows it), then run: patrol doctor --retry"


class Topic(StrEnum):
    """What an alarm is about; one of each goes out in an hour."""

    PARKED_SCANS = "parked-scans"
    PARKED_RESPONSES = "parked-responses"
    PARKED_TOKENS = "parked-tokens"
    REFUSED_MAILS = "refused-mails"
    HELD_UP = "held-up"
    STORE_AWAY = "store-away"
    UNREADABLE = "unreadable"
    SEALS_ENDING = "seals-ending"


@dataclass(frozen=True, slots=True)
class _About:
    table: Table
    states: tuple[str, ...]
    one: str  # "1 scan is parked"
    many: str  # "{} scans are parked"
    what_to_do: str
    only: Callable[[Connection], ColumnElement[bool]] = lambda _: true()  # of what is counted


HELD_UP_RETRIES = 5  # about half a minute of trying
_WAITS = (PENDING, RUNNING)  # being tried just now is no end
AWAY_MS = 900_000  # a store may be deployed anew without a mail

_ABOUT = {
    Topic.PARKED_SCANS: _About(
        scans, (PARKED,), "A scan has stopped", "{} scans have stopped", _RETRY
    ),
    Topic.PARKED_RESPONSES: _About(
        incidents, (PARKED,), "The response to a leaked token has stopped",
        "The responses to {} leaked tokens have stopped", _RETRY,
    ),
    Topic.PARKED_TOKENS: _About(
        sealed_candidates, (PARKED,),
        "A leaked token waits for its proof, and the asking has stopped",
        "{} leaked tokens wait for their proof, and the asking has stopped", _RETRY,
    ),
    Topic.REFUSED_MAILS: _About(
        outbox, (PARKED,), "A mail was refused for good", "{} mails were refused for good",
        "See patrol leaks list; tell their owners in another way, or mend the addresses and run: "
        "patrol doctor --retry",
    ),
    Topic.HELD_UP: _About(
        incidents, _WAITS, "A leaked token is not revoked yet",
        "{} leaked tokens are not revoked yet",
        "Look at the token store: patrol doctor says what is wrong, and how a frozen one is "
        "released. Each token is tried again every minute.",
        lambda _: incidents.c.retries >= HELD_UP_RETRIES,
    ),
    Topic.STORE_AWAY: _About(
        sealed_candidates, _WAITS, "A leaked token waits for its proof, and the store is away",
        "{} leaked tokens wait for their proof, and the store is away",
        "Look at the token store: patrol doctor says what is wrong, and how a frozen one is "
        "released. What waits is asked about again by itself, until PATROL_SEAL_DAYS are over.",
        lambda _: sealed_candidates.c.cause == Cause.STORE_UNAVAILABLE.value,
    ),
    Topic.UNREADABLE: _About(
        sealed_candidates, _WAITS, "The token store gives no answer about a leaked token",
        "The token store gives no answer about {} leaked tokens",
        "It answers about others. Its warnings in the log of patrol worker say what is wrong: a "
        "state or a field that PATROL_STORE does not describe, or a request that fails.",
        lambda _: sealed_candidates.c.cause == Cause.UNREADABLE.value,
    ),
    Topic.SEALS_ENDING: _About(
        sealed_candidates, (HELD,), "A leaked token is still active, and will not be held for long",
        "{} leaked tokens are still active, and will not be held for long",
        "Let the store answer (patrol doctor says what is wrong), or revoke by hand: patrol leaks "
        "show says whose tokens they are. What is not held any more, Patrol cannot revoke there.",
        is_ending,
    ),
}  # fmt: skip


def raise_alarm(
    connection: Connection,
    topic: Topic,
    example: str,
    incident_id: str | None = None,
    *,
    since: int | None = None,
) -> None:
    """Tell the operator, in the caller's transaction, unless a mail that waits will.

    `example` is a sentence about the row at hand; `incident_id` is its incident. `since`: when this
    was to be told for the first time, in the database's milliseconds. If a mail of the topic has
    gone out since, this only reminds of it, and goes out when that mail is a day old.
    """
    due = _turn(connection, topic, since)
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


def warn_of_seals(connection: Connection) -> None:
    """Tell of tokens that are to be revoked, and will not be held for long, while there is time."""
    row = newest_ending(connection)
    if row is None:
        return
    example = (
        f"Incident {row['incident_id']}: its token is still active, as far as is known. The store "
        f"{row['store']} revokes only by the token itself, which is wiped at "
        f"{to_iso(row['expires_at'])} or soon after."
    )
    since = row["expires_at"] - (row["expires_at"] - row["sealed_at"]) // 4
    raise_alarm(connection, Topic.SEALS_ENDING, example, row["incident_id"], since=since)


def as_of_now(
    connection: Connection, notice: Mapping[str, Any], context: Mapping[str, Any]
) -> dict[str, Any]:
    """The context of an alarm that is about to be sent, with what there is by now."""
    if "topic" not in notice:
        return dict(context)
    about = _ABOUT[Topic(notice["topic"])]
    count = connection.execute(_counted(connection, about)).scalar_one()
    said = context["explanation"]
    if count == 0:
        said += " Since then it has gone on by itself, or was put back to work."
    elif count > 1:
        said += f" So it is with {count} in all."
    title = about.many.format(count) if count > 1 else about.one
    return {**context, "title": title, "explanation": said}


def _turn(connection: Connection, topic: Topic, since: int | None) -> int | None:
    """When the next mail of this topic is due: now, or an hour after the last; None: one waits, or
    the last is reminder enough."""
    now = now_in(connection)
    last = alarm_turns.c.due_at
    is_due = last <= now
    if since is not None:
        is_due &= or_(last < since, last <= now - DAY_MS)
    statement = (
        upsert(connection, alarm_turns)
        .values(topic=topic.value, due_at=now)
        .on_conflict_do_update(
            index_elements=["topic"],
            set_={"due_at": case((last + HOUR_MS <= now, now), else_=last + HOUR_MS)},
            where=is_due,
        )
        .returning(last)
    )
    due: int | None = connection.execute(statement).scalar_one_or_none()
    return due


def _counted(connection: Connection, about: _About) -> Any:
    table = about.table
    query = select(func.count()).select_from(table).where(table.c.state.in_(about.states))
    query = query.where(about.only(connection))
    if table is outbox:  # an alarm that was refused cannot be told of by another
        query = query.where(table.c.kind != "alarm")
    return query
