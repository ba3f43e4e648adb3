"""When each kind of process last did its round: silence is noticed, not guessed."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, or_, select

from scanner.db.clock import now_ms
from scanner.db.dialect import upsert
from scanner.db.schema import heartbeats

ROUND = "round"  # beat's round was done, by beat or by whoever stood in for it
BEAT = "beat"  # beat itself did one
WORKER = "worker"  # the beginning of every worker's name


def report(connection: Connection, name: str) -> None:
    """Note that the process of that name works now."""
    now = now_ms(connection)
    connection.execute(
        upsert(connection, heartbeats)
        .values(name=name, at=now)
        .on_conflict_do_update(index_elements=["name"], set_={"at": now})
    )


def is_silent(connection: Connection, name: str, silent_ms: int) -> bool:
    """True when that process has not reported for so long. Waits for nobody."""
    return ages(connection, now_ms(connection)).get(name, silent_ms + 1) > silent_ms


def ages(connection: Connection, now: int) -> Mapping[str, int]:
    """Return name -> milliseconds since its last report, at the database's time `now`.

    A report from the future is as old as it is far: where the database's clock is this machine's,
    it may have been set back, and nobody who lives would not have reported since.
    """
    rows = connection.execute(select(heartbeats.c.name, heartbeats.c.at).order_by("name"))
    return {row.name: abs(now - row.at) for row in rows}


def begin_round(connection: Connection, name: str, every_ms: int) -> bool:
    """True for one process, once in so long: it shall do the round of that name. One that was done
    in the future, by a clock that was set back, counts as long ago."""
    now = now_ms(connection)
    result = connection.execute(
        upsert(connection, heartbeats)
        .values(name=name, at=now)
        .on_conflict_do_update(
            index_elements=["name"],
            set_={"at": now},
            where=or_(heartbeats.c.at <= now - every_ms, heartbeats.c.at > now + every_ms),
        )
    )
    return result.rowcount == 1
