"""Signs of life: how much waits and for how long, what stands still, who did not report.

Read at each scrape and each readiness probe, so every query here is answered from an index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Table, and_, case, func, literal, or_, select

from scanner.db.clock import now_ms
from scanner.db.heartbeats import ages
from scanner.db.lanes import Lane
from scanner.db.leases import PARKED, PENDING, RUNNING
from scanner.db.schema import (
    audit_queue,
    incidents,
    outbox,
    scans,
    sealed_candidates,
    store_freezes,
)

WORK: Mapping[str, Table] = {
    "scans": scans,
    "sealed": sealed_candidates,
    "incidents": incidents,
    "notices": outbox,
}


@dataclass(frozen=True, slots=True)
class Queue:
    """Work that could be claimed now: `oldest_ms` is for how long the first of it could have been,
    0 when there is none."""

    name: str
    lane: str  # of scans: who waits for them; "" elsewhere
    ready: int
    oldest_ms: int


@dataclass(frozen=True, slots=True)
class Vitals:
    """One moment of an installation. `heartbeats`: name of a process -> milliseconds ago."""

    at: int  # the database's time
    queues: tuple[Queue, ...]
    parked: Mapping[str, int]  # rows that wait for a person, by the name of their work
    heartbeats: Mapping[str, int]
    frozen: tuple[str, ...]  # stores
    unsealed: int  # audit events

    @property
    def lag_ms(self) -> int:
        """For how long the oldest work of all has waited to be claimed."""
        return max((queue.oldest_ms for queue in self.queues), default=0)


def read_vitals(connection: Connection) -> Vitals:
    """Look at everything once; call it in a reading transaction."""
    now = now_ms(connection)
    frozen = connection.execute(select(store_freezes.c.store).order_by(store_freezes.c.store))
    unsealed = connection.execute(select(func.count()).select_from(audit_queue)).scalar_one()
    return Vitals(
        at=now,
        queues=tuple(
            queue for name, table in WORK.items() for queue in _queues(connection, name, table, now)
        ),
        parked={name: _parked(connection, table) for name, table in WORK.items()},
        heartbeats=ages(connection, now),
        frozen=tuple(frozen.scalars()),
        unsealed=unsealed,
    )


def _queues(connection: Connection, name: str, table: Table, now: int) -> Iterator[Queue]:
    since = case((table.c.state == PENDING, table.c.available_at), else_=table.c.lease_until)
    number = table.c.priority if table is scans else literal(None)
    found = connection.execute(
        select(number.label("lane"), func.count(), func.min(since))
        .where(
            or_(
                and_(table.c.state == PENDING, table.c.available_at <= now),
                and_(table.c.state == RUNNING, table.c.lease_until < now),
            )
        )
        .group_by("lane")
    )
    seen: dict[int | None, tuple[int, int]] = {
        lane: (ready, max(0, now - oldest)) for lane, ready, oldest in found
    }
    if table is scans:
        for lane in Lane:
            yield Queue(name, lane.name.lower(), *seen.get(lane, (0, 0)))
    else:
        yield Queue(name, "", *seen.get(None, (0, 0)))


def _parked(connection: Connection, table: Table) -> int:
    query = select(func.count()).select_from(table).where(table.c.state == PARKED)
    return connection.execute(query).scalar_one()
