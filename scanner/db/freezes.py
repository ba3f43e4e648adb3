"""Stores whose answers may not be acted on (threat 12): revocation waits until a person decides."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select, update

from scanner.db import audit, outbox
from scanner.db.clock import now_ms
from scanner.db.dialect import upsert
from scanner.db.leases import PENDING
from scanner.db.schema import incidents, sealed_candidates, store_freezes
from scanner.model import AuditAction


def is_frozen(connection: Connection, store: str) -> bool:
    """True while revocations through this store must wait."""
    found = connection.execute(select(store_freezes.c.store).where(store_freezes.c.store == store))
    return found.scalar_one_or_none() is not None


def freeze(connection: Connection, store: str, reason: str) -> bool:
    """Freeze and alarm the operator; False when it was frozen already, so that one alarm goes out,
    not a storm."""
    now = now_ms(connection)
    result = connection.execute(
        upsert(connection, store_freezes)
        .values(store=store, since=now, reason=reason)
        .on_conflict_do_nothing()
    )
    if result.rowcount != 1:
        return False
    audit.record(connection, AuditAction.STORE_FROZEN, store=store, reason=reason)
    outbox.alarm(
        connection,
        dedupe=f"freeze:{store}:{now}",
        title=f"Revocation is frozen for the store {store}",
        explanation=reason,
        what_to_do=f"Repair the store, then run: patrol policy set --release-store {store}",
    )
    return True


def release(connection: Connection, store: str, actor: str) -> bool:
    """A person lifts the freeze, and what waited for it goes on at once; False: there was none."""
    result = connection.execute(delete(store_freezes).where(store_freezes.c.store == store))
    if result.rowcount != 1:
        return False
    now = now_ms(connection)
    for table, waiting in (
        (incidents, incidents.c.store == store),
        (sealed_candidates, sealed_candidates.c.store == store),
    ):
        connection.execute(
            update(table).where(table.c.state == PENDING, waiting).values(available_at=now)
        )
    audit.record(connection, AuditAction.STORE_RELEASED, actor=actor, store=store)
    return True
