"""Stores whose answers may not be acted on (threat 12): revocation waits until a person decides."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from scanner.db import audit
from scanner.db.clock import now_ms
from scanner.db.schema import store_freezes
from scanner.model import AuditAction


def is_frozen(connection: Connection, store: str) -> bool:
    """True while revocations through this store must wait."""
    found = connection.execute(select(store_freezes.c.store).where(store_freezes.c.store == store))
    return found.scalar_one_or_none() is not None


def freeze(connection: Connection, store: str, reason: str) -> bool:
    """Freeze; False when it was frozen already (so that one alarm goes out, not a storm)."""
    result = connection.execute(
        upsert(store_freezes)
        .values(store=store, since=now_ms(connection), reason=reason)
        .on_conflict_do_nothing()
    )
    if result.rowcount != 1:
        return False
    audit.record(connection, AuditAction.STORE_FROZEN, store=store, reason=reason)
    return True


def release(connection: Connection, store: str, actor: str) -> bool:
    """A person lifts the freeze; False when there was none."""
    result = connection.execute(delete(store_freezes).where(store_freezes.c.store == store))
    if result.rowcount != 1:
        return False
    audit.record(connection, AuditAction.STORE_RELEASED, actor=actor, store=store)
    return True
