"""Forgetting heads that no fetch says `have` for: only the newest of a repository are said."""

from __future__ import annotations

from sqlalchemy import Engine, delete, func, select, tuple_

from scanner.db import heartbeats
from scanner.db.clock import now_ms
from scanner.db.scans import HAVES
from scanner.db.schema import scanned_heads
from scanner.deadline import Deadline

_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000
_OLD_MS = 365 * _DAY_MS  # of patterns or a store that are not in use any more
_BATCH = 1_000
_ROUND = "prune-heads"


def prune_heads(engine: Engine, deadline: Deadline) -> int:
    """Once an hour, forget what is beyond the newest heads of each repository and ruleset, and what
    is a year old; returns how many are gone. Forgetting costs a fetch that reads more, nothing
    else; what there is no time for is left to the next hour."""
    with engine.begin() as connection:
        if not heartbeats.begin_round(connection, _ROUND, _HOUR_MS):
            return 0
    key = (scanned_heads.c.repository_id, scanned_heads.c.ruleset, scanned_heads.c.object_id)
    rank = func.row_number().over(
        partition_by=key[:2],
        order_by=(scanned_heads.c.scanned_at.desc(), scanned_heads.c.object_id),
    )
    total = 0
    while not deadline.is_over:
        with engine.begin() as connection:
            ranked = select(*key, scanned_heads.c.scanned_at, rank.label("rank")).subquery()
            old = (
                select(ranked.c.repository_id, ranked.c.ruleset, ranked.c.object_id)
                .where(
                    (ranked.c.rank > HAVES) | (ranked.c.scanned_at < now_ms(connection) - _OLD_MS)
                )
                .limit(_BATCH)
            )
            rows = [tuple(row) for row in connection.execute(old)]
            if not rows:
                break
            connection.execute(delete(scanned_heads).where(tuple_(*key).in_(rows)))
        total += len(rows)
    return total
