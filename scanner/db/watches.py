"""The watch list: repositories that are scanned on a schedule."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, select

from scanner.db import audit
from scanner.db.clock import now_ms, to_iso
from scanner.db.dialect import upsert
from scanner.db.scans import repository_id, request_watch_scan
from scanner.db.schema import new_id, repositories, watches
from scanner.errors import FinalError
from scanner.model import AuditAction

_SHORTEST_SECONDS = 1


def add_watch(
    connection: Connection, host: str, name: str, every_seconds: float, actor: str
) -> str:
    """Watch a repository from now on; the first scan is due at once."""
    if every_seconds < _SHORTEST_SECONDS:
        raise FinalError(f"Scans of one repository are at least {_SHORTEST_SECONDS} second apart.")
    repository = repository_id(connection, host, name)
    now = now_ms(connection)
    watch_id = new_id()
    added = connection.execute(
        upsert(connection, watches)
        .values(
            id=watch_id,
            repository_id=repository,
            every_ms=round(every_seconds * 1000),
            next_due=now,
            created_at=now,
        )
        .on_conflict_do_nothing(index_elements=["repository_id"])
    )
    if added.rowcount != 1:
        raise FinalError(f"{name} is watched already.")
    audit.record(
        connection,
        AuditAction.WATCH_ADDED,
        actor=actor,
        repository=name,
        every_seconds=every_seconds,
    )
    return watch_id


def _find(connection: Connection, name: str, host: str | None) -> Any:
    query = (
        select(watches)
        .join(repositories, repositories.c.id == watches.c.repository_id)
        .where(repositories.c.name == name)
    )
    if host is not None:
        query = query.where(repositories.c.host == host)
    rows = connection.execute(query).all()
    if not rows:
        raise FinalError(f"{name} is not on the watch list; see: patrol watch list")
    if len(rows) > 1:
        raise FinalError(
            f"{name} is watched on {len(rows)} hosts; give --host, see: patrol watch list"
        )
    return rows[0]


def remove_watch(connection: Connection, name: str, actor: str, host: str | None = None) -> None:
    """Stop watching; what was found stays. `host` is needed for a name that several have."""
    watch = _find(connection, name, host)
    connection.execute(delete(watches).where(watches.c.id == watch.id))
    audit.record(connection, AuditAction.WATCH_REMOVED, actor=actor, repository=name)


def run_watch_now(connection: Connection, name: str, host: str | None = None) -> str | None:
    """Ask for a scan now, outside the schedule; returns the scan's id."""
    watch = _find(connection, name, host)
    return request_watch_scan(connection, watch.id, watch.repository_id, now_ms(connection))


def list_watches(connection: Connection) -> list[dict[str, Any]]:
    """Return the watch list as plain values."""
    rows = connection.execute(
        select(watches, repositories.c.name, repositories.c.host)
        .join(repositories, repositories.c.id == watches.c.repository_id)
        .order_by(repositories.c.name)
    )
    return [
        {
            "id": row.id,
            "repository": row.name,
            "host": row.host,
            "every_seconds": row.every_ms / 1000,
            "next_due": to_iso(row.next_due),
        }
        for row in rows
    ]
