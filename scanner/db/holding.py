"""Many claims at once: their leases begun anew, or ended in one transaction.

Who renews the leases of a batch and who ends them lock the same rows, each in the order of the ids:
so neither waits for the other while the other waits for him.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, String, Table, bindparam, cast, select, update

from scanner.db.clock import now_in
from scanner.db.leases import RUNNING, Claim, Patience
from scanner.db.tokens import among, many


def renew(engine: Engine, table: Table, held: Iterable[Claim], patience: Patience) -> int:
    """Begin the leases anew; returns of how many claims: the others were ended, or lost."""
    with engine.begin() as connection:
        kept = hold(connection, table, held)
        if kept:
            connection.execute(
                update(table)
                .where(among(connection.dialect.name, table.c.id, "kept"))
                .values(lease_until=now_in(connection) + patience.lease_ms),
                {"kept": many(connection.dialect.name, kept)},
            )
        return len(kept)


def hold(connection: Connection, table: Table, held: Iterable[Claim]) -> set[str]:
    """Return the ids of the claims that were not lost, and let nobody take those until this
    transaction ends."""
    dialect = connection.dialect.name
    fences = {one.id: one.fence for one in held}
    named = table.c.id + ":" + cast(table.c.fence, String)
    rows = connection.execute(
        select(table.c.id)
        .where(
            among(dialect, table.c.id, "ids"), among(dialect, named, "held"),
            table.c.state == RUNNING,
        )
        # In one order: who renews these leases must not wait for who ends them, and he for him.
        .order_by(table.c.id)
        .with_for_update(),
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
