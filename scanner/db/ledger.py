"""The blob ledger's rows: large files that were matched whole and held nothing (law 7).

A row is written in the transaction of its scan's verdict, so it says no more than what is durable.
It counts for as long as it is younger than its time to live: then the file is matched once more,
and an entry that should never have been is gone.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import (
    Connection,
    Engine,
    Select,
    delete,
    false,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.exc import SQLAlchemyError

from scanner.db import audit, outbox
from scanner.db.clock import now_in, now_ms
from scanner.db.dialect import POSTGRESQL, upsert
from scanner.db.engine import reader
from scanner.db.schema import blob_ledger, scanned_heads
from scanner.model import AuditAction

log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_CHUNK = 500  # ids of one statement
_PRUNED = 5_000  # rows of one transaction, so that nobody waits long for it
_MOST_ROUNDS = 40
_PRUNE_EVERY = 2_000  # rows that are remembered, on average


class DatabaseLedger:
    """The ledger in the database, alone or behind a quicker one. Satisfies `ports.BlobLedger`.

    `keep_ms`: how long an entry counts. `most_rows`: the oldest beyond it are dropped.
    """

    def __init__(self, engine: Engine, *, keep_ms: int, most_rows: int) -> None:
        self._engine = engine
        self._keep_ms = keep_ms
        self._most_rows = most_rows

    def known(self, ruleset: str, object_ids: Sequence[str]) -> set[str]:
        """Return those that are remembered; none when the database does not answer."""
        found: set[str] = set()
        try:
            with reader(self._engine).connect() as connection:
                for at in range(0, len(object_ids), _CHUNK):
                    found.update(
                        connection.execute(
                            select(blob_ledger.c.object_id).where(
                                blob_ledger.c.ruleset == ruleset,
                                blob_ledger.c.object_id.in_(object_ids[at : at + _CHUNK]),
                                blob_ledger.c.scanned_at > now_in(connection) - self._keep_ms,
                            )
                        ).scalars()
                    )
        except SQLAlchemyError as error:
            log.warning("the blob ledger cannot be read: %s", type(error).__name__)
            return set()
        return found

    def remember(self, connection: Connection, ruleset: str, object_ids: Iterable[str]) -> None:
        """Write entries in the transaction of their scan's verdict, or have them begin anew."""
        rows = [
            {"ruleset": ruleset, "object_id": object_id}
            # In one order everywhere: two scans of the same files must not wait for each other.
            for object_id in sorted(set(object_ids))
        ]
        if not rows:
            return
        now = now_in(connection)
        insert = upsert(connection, blob_ledger).values(scanned_at=now)
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=["ruleset", "object_id"],
                set_={"scanned_at": insert.excluded.scanned_at},
                where=blob_ledger.c.scanned_at < now - self._keep_ms // 4,  # spares most rewriting
            ),
            rows,
        )

    def publish(self, _ruleset: str, object_ids: Collection[str]) -> None:
        """Prune now and then: what the commit wrote can be read by everybody already."""
        if secrets.randbelow(_PRUNE_EVERY) < len(object_ids):
            try:
                self.prune()
            except SQLAlchemyError as error:
                log.warning("the blob ledger cannot be pruned: %s", type(error).__name__)

    def prune(self) -> int:
        """Delete what is too old, and the oldest beyond the bound; returns how many rows."""
        with reader(self._engine).connect() as connection:
            newest_outside = connection.execute(
                select(blob_ledger.c.scanned_at)
                .order_by(blob_ledger.c.scanned_at.desc())
                .offset(self._most_rows)
                .limit(1)
            ).scalar_one_or_none()
            oldest = now_ms(connection) - self._keep_ms
        deleted = 0
        for _ in range(_MOST_ROUNDS):
            with self._engine.begin() as connection:
                count = connection.execute(
                    delete(blob_ledger).where(
                        tuple_(blob_ledger.c.ruleset, blob_ledger.c.object_id).in_(
                            self._outdated(oldest, newest_outside)
                        )
                    )
                ).rowcount
            deleted += count
            if count < _PRUNED:
                break
        return deleted

    @staticmethod
    def _outdated(oldest: int, newest_outside: int | None) -> Select[tuple[str, str]]:
        outside = false() if newest_outside is None else blob_ledger.c.scanned_at <= newest_outside
        return (
            select(blob_ledger.c.ruleset, blob_ledger.c.object_id)
            .where(or_(blob_ledger.c.scanned_at <= oldest, outside))
            .order_by(blob_ledger.c.scanned_at)
            .limit(_PRUNED)
            .with_for_update(skip_locked=True)  # who is renewing a row may keep it
        )

    def distrust(self, object_id: str) -> None:
        """Forget everything, because the entry of this file was false, and alarm the operator."""
        with self._engine.begin() as connection:
            _empty(connection)
            audit.record(connection, AuditAction.LEDGER_DISTRUSTED, object_id=object_id)
            # What the false ledger hid was counted as read. Once a day at most: a process that
            # lies about everything must not have all repositories read again and again.
            if _alarm(connection):
                connection.execute(delete(scanned_heads))


def _empty(connection: Connection) -> None:
    if connection.dialect.name == POSTGRESQL:
        # Row after row, whoever writes them in another order would wait for us, and we for him.
        connection.execute(text("LOCK TABLE blob_ledger IN SHARE ROW EXCLUSIVE MODE"))
    connection.execute(delete(blob_ledger))


def _alarm(connection: Connection) -> bool:
    return outbox.alarm(
        connection,
        dedupe=f"ledger:{now_ms(connection) // _DAY_MS}",
        title="The ledger of files without tokens was false",
        explanation=(
            "A file that it said to hold nothing was matched again, as a sample, and holds "
            "something. The ledger was emptied, and every repository is read anew when it is "
            "pushed to or watched next."
        ),
        what_to_do=(
            "Find out who wrote to the database, or to Redis with a key of ours, or which "
            "repository broke the process that reads packs. If Redis was away meanwhile, delete "
            "its keys that begin with ledger: after PATROL_REDIS_PREFIX as well."
        ),
    )
