"""Signs of life: how much waits and for how long, what stands still, who did not report.

Read at each scrape and each readiness probe, so every query here is answered from an index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Table, and_, case, func, or_, select

from scanner.db.clock import now_ms
from scanner.db.heartbeats import ages
from scanner.db.leases import PARKED, PENDING, RUNNING
from scanner.db.schema import audit_queue, incidents, outbox, scans, store_freezes

WORK: Mapping[str, Table] = {"scans": scans, "incidents": incidents, "notices": outbox}


@dataclass(frozen=True, slots=True)
class Queue:
    """Work that could be claimed now: `oldest_ms` is for how long the first of it could have been,
    0 when there is none."""

    name: str
    ready: int
    oldest_ms: int
    parked: int


@dataclass(frozen=True, slots=True)
class Vitals:
    """One moment of an installation. `heartbeats`: name of a process -> milliseconds ago."""

    at: int  # the database's time
    queues: tuple[Queue, ...]
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
        queues=tuple(_queue(connection, name, table, now) for name, table in WORK.items()),
        heartbeats=ages(connection, now),
        frozen=tuple(frozen.scalars()),
        unsealed=unsealed,
    )


def _queue(connection: Connection, name: str, table: Table, now: int) -> Queue:
    since = case((table.c.state == PENDING, table.c.available_at), else_=table.c.lease_until)
    ready, oldest = connection.execute(
        select(func.count(), func.min(since)).where(
            or_(
                and_(table.c.state == PENDING, table.c.available_at <= now),
                and_(table.c.state == RUNNING, table.c.lease_until < now),
            )
        )
    ).one()
    parked = connection.execute(
        select(func.count()).select_from(table).where(table.c.state == PARKED)
    ).scalar_one()
    return Queue(name, ready, max(0, now - oldest) if ready else 0, parked)
