"""Intake and record of scans: a push or a due watch becomes one row, once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from scanner.db.clock import now_ms
from scanner.db.dialect import upsert
from scanner.db.lanes import Lane
from scanner.db.leases import PARKED, PENDING, RUNNING
from scanner.db.schema import new_id, repositories, scanned_heads, scans, watches
from scanner.db.seals import key_of

_MOST_DUE = 500
_HAVES = 256  # newest complete heads offered to the server; more only lengthen the request


@dataclass(frozen=True, slots=True)
class PushRow:
    """A push as intake stores it: free text already masked, raw text sealed where it differs."""

    hook: str
    body_digest: str
    host: str
    repository: str
    ref: str
    before: str
    after: str
    forced: bool
    delivery: str | None
    sealed: bytes | None = None


def repository_id(connection: Connection, host: str, name: str) -> str:
    """Return the id of a repository, creating its row on first sight."""
    connection.execute(
        upsert(connection, repositories)
        .values(id=new_id(), host=host, name=name, created_at=now_ms(connection))
        .on_conflict_do_nothing()
    )
    found = connection.execute(
        select(repositories.c.id).where(repositories.c.host == host, repositories.c.name == name)
    ).scalar_one()
    return str(found)


def accept_push(connection: Connection, push: PushRow) -> tuple[str, bool]:
    """Store a push; returns (scan id, is new). The same body again wakes a parked scan anew."""
    now = now_ms(connection)
    scan_id = new_id()
    result = connection.execute(
        upsert(connection, scans)
        .values(
            id=scan_id,
            source="github-webhook",
            priority=Lane.WEBHOOKS,
            hook=push.hook,
            body_digest=push.body_digest,
            repository_id=repository_id(connection, push.host, push.repository),
            ref=push.ref,
            before=push.before,
            after=push.after,
            forced=push.forced,
            delivery=push.delivery,
            sealed=push.sealed,
            seal_key=key_of(push.sealed) if push.sealed else None,
            received_at=now,
            state=PENDING,
            available_at=now,
            attempts=0,
            fence=0,
            partial=[],
        )
        .on_conflict_do_nothing(index_elements=["hook", "body_digest"])
    )
    if result.rowcount == 1:
        return scan_id, True
    known = connection.execute(
        select(scans.c.id).where(scans.c.hook == push.hook, scans.c.body_digest == push.body_digest)
    ).scalar_one()
    connection.execute(
        update(scans)
        .where(scans.c.id == known, scans.c.state == PARKED)
        .values(
            state=PENDING,
            attempts=0,
            retries=0,
            available_at=now,
            error=None,
            sealed=push.sealed,
            seal_key=key_of(push.sealed) if push.sealed else None,
        )
    )
    return known, False


def accept_due_watches(connection: Connection) -> int:
    """Turn watches that are due into scans, unique by (watch, due time); returns how many. Where
    a great many are due at once, each call takes a part, so that no tick takes long."""
    now = now_ms(connection)
    due = connection.execute(
        select(watches)
        .where(watches.c.next_due <= now)
        .order_by(watches.c.next_due)
        .limit(_MOST_DUE)
        .with_for_update(skip_locked=True)
    ).all()  # what another beat holds is being accepted
    accepted = 0
    for watch in due:
        # A round that has not ended reads all there is by then: behind it, none piles up.
        if not _is_being_scanned(connection, watch.id):
            made = request_watch_scan(connection, watch.id, watch.repository_id, watch.next_due)
            accepted += made is not None
        # The next due time stays on the schedule's grid; missed rounds are one late round.
        missed = (now - watch.next_due) // watch.every_ms
        connection.execute(
            update(watches)
            .where(watches.c.id == watch.id, watches.c.next_due == watch.next_due)
            .values(next_due=watch.next_due + (missed + 1) * watch.every_ms)
        )
    return accepted


def _is_being_scanned(connection: Connection, watch_id: str) -> bool:
    unfinished = select(scans.c.id).where(
        scans.c.watch_id == watch_id, scans.c.state.in_([PENDING, RUNNING])
    )
    return connection.execute(unfinished.limit(1)).first() is not None


def request_watch_scan(
    connection: Connection, watch_id: str, repository: str, due_at: int
) -> str | None:
    """Create the scan of one due time; None when it exists already."""
    now = now_ms(connection)
    scan_id = new_id()
    result = connection.execute(
        upsert(connection, scans)
        .values(
            id=scan_id,
            source="watch",
            priority=Lane.HISTORY,
            watch_id=watch_id,
            due_at=due_at,
            repository_id=repository,
            forced=False,
            received_at=now,
            state=PENDING,
            available_at=now,
            attempts=0,
            fence=0,
            partial=[],
        )
        .on_conflict_do_nothing()
    )
    return scan_id if result.rowcount == 1 else None


def complete_heads(connection: Connection, repository: str, ruleset: str) -> tuple[str, ...]:
    """Return the heads that were scanned completely under this ruleset, newest first."""
    rows = connection.execute(
        select(scanned_heads.c.object_id)
        .where(scanned_heads.c.repository_id == repository, scanned_heads.c.ruleset == ruleset)
        .order_by(scanned_heads.c.scanned_at.desc())
        .limit(_HAVES)
    )
    return tuple(rows.scalars())


def remember_heads(
    connection: Connection, repository: str, ruleset: str, heads: Iterable[str]
) -> None:
    """Record heads as completely scanned; call it in the transaction of the scan's verdict."""
    now = now_ms(connection)
    for head in heads:
        connection.execute(
            upsert(connection, scanned_heads)
            .values(repository_id=repository, ruleset=ruleset, object_id=head, scanned_at=now)
            .on_conflict_do_update(
                index_elements=["repository_id", "ruleset", "object_id"],
                set_={"scanned_at": now},
            )
        )


def repository_of(connection: Connection, repository: str) -> Mapping[str, Any]:
    """Return the repository's row."""
    row = connection.execute(select(repositories).where(repositories.c.id == repository))
    return dict(row.mappings().one())
