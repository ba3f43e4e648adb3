"""Many claims at once: their leases begun anew, or ended in one transaction.

Who renews the leases of a batch locks many rows, in an order that others may not have: so he waits
for nobody, and nobody who waits for him keeps him waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, String, Table, bindparam, cast, select, update

from scanner.db import leases
from scanner.db.clock import now_in
from scanner.db.leases import RUNNING, Claim, Patience
from scanner.db.tokens import among, many


def renew(engine: Engine, table: Table, held: Sequence[Claim], patience: Patience) -> int:
    """Begin the leases anew; returns of how many claims: the others were ended, or lost. Of many,
    those that somebody is writing to at this moment are left for the next time."""
    with engine.begin() as connection:
        if len(held) == 1:
            until = now_in(connection) + patience.lease_ms
            return int(leases.settle(connection, table, held[0], lease_until=until))
        kept = hold(connection, table, held, skip_locked=True)
        if kept:
            connection.execute(
                update(table)
                .where(among(connection.dialect.name, table.c.id, "kept"))
                .values(lease_until=now_in(connection) + patience.lease_ms),
                {"kept": many(connection.dialect.name, kept)},
            )
        return len(kept)


def hold(
    connection: Connection, table: Table, held: Iterable[Claim], *, skip_locked: bool = False
) -> set[str]:
    """Return the ids of the claims that were not lost, and let nobody take those until this
    transaction ends. `skip_locked` leaves out rows that another transaction holds."""
    dialect = connection.dialect.name
    fences = {one.id: one.fence for one in held}
    named = table.c.id + ":" + cast(table.c.fence, String)
    rows = connection.execute(
        select(table.c.id)
        .where(
            among(dialect, table.c.id, "ids"), among(dialect, named, "held"),
            table.c.state == RUNNING,
        )
        .order_by(table.c.id)  # two that hold the same rows must not wait for each other
        .with_for_update(skip_locked=skip_locked),
        {
            "ids": many(dialect, fences),
            "held": many(dialect, (f"{row}:{fence}" for row, fence in fences.items())),
        },
    )  # fmt: skip
    return set(rows.scalars())


def finish_held(
    connection: Connection, table: Table, ends: Mapping[str, Mapping[str, Any]]
) -> None:
    """End claims that this transaction holds: by id the columns' new values, the same columns for
    each, `state` among them."""
    if not ends:
        return
    names = next(iter(ends.values()))
    connection.execute(
        update(table)
        .where(table.c.id == bindparam("held_id"))
        .values(lease_until=None, **{name: bindparam(f"new_{name}") for name in names}),
        [
            {"held_id": row, **{f"new_{name}": value for name, value in values.items()}}
            for row, values in sorted(ends.items())
        ],
    )
