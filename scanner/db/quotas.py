"""How often somebody did something within the present stretch of time, counted for all processes at
once. Stretches are of one length, and begin with the database's clock."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, case, or_

from scanner.db.clock import now_ms
from scanner.db.dialect import upsert
from scanner.db.schema import quotas


@dataclass(frozen=True, slots=True)
class Taken:
    """`amount` may be spent (0: none is left) within the stretch of that number; in `ends_in_ms` it
    is over, and what was not spent is lost."""

    amount: int
    window: int
    ends_in_ms: int


def take(
    connection: Connection, name: str, limit: int, *, each_ms: int, wanted: int, at_least: int
) -> Taken:
    """Take `wanted` of what is left of the `limit` for `each_ms`; else `at_least`, or nothing."""
    now = now_ms(connection)
    window, passed = divmod(now, each_ms)
    for amount in dict.fromkeys((wanted, at_least)):
        if amount <= limit and _add(connection, name, window, amount, limit):
            return Taken(amount, window, each_ms - passed)
    return Taken(0, window, each_ms - passed)


def _add(connection: Connection, name: str, window: int, amount: int, limit: int) -> bool:
    is_over = quotas.c.window < window
    total = case((is_over, 0), else_=quotas.c.used) + amount
    done = connection.execute(
        upsert(connection, quotas)
        .values(name=name, window=window, used=amount)
        .on_conflict_do_update(
            index_elements=["name"],
            # What others have begun already is theirs and ours: it never goes back.
            set_={"window": case((is_over, window), else_=quotas.c.window), "used": total},
            where=or_(is_over, quotas.c.used <= limit - amount),
        )
    )
    return bool(done.rowcount == 1)
