"""Intake and record of scans: a push or a due watch becomes one row, once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text, update

from scanner.db.clock import now_in, now_ms
from scanner.db.dialect import upsert
from scanner.db.lanes import Lane
from scanner.db.leases import PARKED, PENDING
from scanner.db.schema import UNFINISHED, new_id, repositories, scanned_heads, scans, watches
from scanner.db.seals import key_of
from scanner.db.tokens import among, many

_MOST_DUE = 500
HAVES = 256  # newest complete heads offered to the server; more only lengthen the request


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
    unfinished = select(scans.c.id).where(scans.c.watch_id == watch_id, text(UNFINISHED))
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


@dataclass(frozen=True, slots=True)
class KnownRepository:
    """A repository as a scan needs it; `heads` were scanned completely, newest first."""

    host: str
    name: str
    heads: tuple[str, ...]


def known_repositories(
    connection: Connection, wanted: Collection[str], ruleset: str
) -> dict[str, KnownRepository]:
    """Return each repository by its id, with its newest heads that were scanned completely under
    this ruleset: two statements, however many repositories."""
    dialect = connection.dialect.name
    ids = {"ids": many(dialect, sorted(wanted))}
    rank = func.row_number().over(
        partition_by=scanned_heads.c.repository_id, order_by=scanned_heads.c.scanned_at.desc()
    )
    ranked = (
        select(scanned_heads, rank.label("rank"))
        .where(
            among(dialect, scanned_heads.c.repository_id, "ids"), scanned_heads.c.ruleset == ruleset
        )
        .subquery()
    )
    newest = (
        select(ranked.c.repository_id, ranked.c.object_id)
        .where(ranked.c.rank <= HAVES)
        .order_by(ranked.c.repository_id, ranked.c.rank)
    )
    heads: dict[str, list[str]] = {}
    for repository, object_id in connection.execute(newest, ids):
        heads.setdefault(repository, []).append(object_id)
    named = select(repositories.c.id, repositories.c.host, repositories.c.name)
    rows = connection.execute(named.where(among(dialect, repositories.c.id, "ids")), ids)
    return {
        row.id: KnownRepository(row.host, row.name, tuple(heads.get(row.id, ()))) for row in rows
    }


def remember_heads(connection: Connection, ruleset: str, heads: Iterable[tuple[str, str]]) -> None:
    """Record (repository, head) as completely scanned; call it in the transaction of the scans'
    verdicts."""
    # In one order everywhere: two batches of the same repositories must not wait for each other.
    rows = [
        {"repository_id": repository, "object_id": head} for repository, head in sorted(set(heads))
    ]
    if not rows:
        return
    now = now_in(connection)
    insert = upsert(connection, scanned_heads).values(ruleset=ruleset, scanned_at=now)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["repository_id", "ruleset", "object_id"],
            set_={"scanned_at": insert.excluded.scanned_at},
        ),
        rows,
    )
