"""Notices that must go out: a row each, written with the step that causes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from scanner.db.clock import now_in, now_ms, to_iso
from scanner.db.dialect import upsert
from scanner.db.leases import PENDING
from scanner.db.schema import new_id, outbox


def enqueue(
    connection: Connection,
    *,
    kind: str,
    dedupe: str,
    notice: Mapping[str, Any],
    incident_id: str | None = None,
    available_at: int | None = None,
) -> bool:
    """Add a notice unless one with the same `dedupe` key exists; True when it was added. It goes
    out at `available_at`, or at once."""
    now = now_in(connection)
    result = connection.execute(
        upsert(connection, outbox)
        .values(
            id=new_id(),
            incident_id=incident_id,
            kind=kind,
            dedupe=dedupe,
            notice=dict(notice),
            created_at=now,
            state=PENDING,
            available_at=now if available_at is None else available_at,
            attempts=0,
            fence=0,
        )
        .on_conflict_do_nothing()
    )
    return result.rowcount == 1


def alarm(
    connection: Connection,
    *,
    dedupe: str,
    title: str,
    explanation: str,
    what_to_do: str,
    incident_id: str | None = None,
    topic: str | None = None,
    available_at: int | None = None,
) -> bool:
    """Add a mail to the operator, in the caller's transaction; True unless it is there already.

    `topic`: what alarms.py counts when the mail goes out, which is at `available_at`, or at once.
    """
    return enqueue(
        connection,
        kind="alarm",
        dedupe=dedupe,
        incident_id=incident_id,
        available_at=available_at,
        notice={
            "kind": "alarm",
            "to": None,  # the operator, set when sent
            "reply_to": None,
            **({} if topic is None else {"topic": topic}),
            "context": {
                "title": title,
                "explanation": explanation,
                "what_to_do": what_to_do,
                "at": to_iso(now_ms(connection)),
            },
        },
    )
