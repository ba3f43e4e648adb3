"""The chains of keys that digests are made with, and the order in which they may change.

A look-up tries every chain that stands here, so a chain is committed before any row uses it and
goes only when none does. And a token that is issued while a scan records that nobody knows it must
not miss its leak: whoever writes tokens and whoever writes sightings of unknown tokens keep out of
each other's way, each side with its own kind at once. On PostgreSQL a lock on this table, which
hardly ever changes, says so; look-ups wait for neither. SQLite has one writer at a time anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, delete, select, text, union

from scanner.db.clock import now_ms
from scanner.db.dialect import POSTGRESQL, upsert
from scanner.db.schema import digest_chains, tokens, unknown_digests

_TRIES = 3  # each is lost only to somebody who removes the chain just then


def all_chains(connection: Connection) -> frozenset[str]:
    """Return every chain there is."""
    return frozenset(connection.execute(select(digest_chains.c.key_id)).scalars())


def add(connection: Connection, chains: Iterable[str]) -> None:
    """Add chains that are missing."""
    rows = [{"key_id": chain, "created_at": now_ms(connection)} for chain in chains]
    if rows:
        connection.execute(upsert(connection, digest_chains).on_conflict_do_nothing(), rows)


@contextmanager
def issuing(engine: Engine, chains: Iterable[str]) -> Iterator[tuple[Connection, frozenset[str]]]:
    """A transaction that may write tokens under `chains`; also gives every chain there is."""
    wanted = frozenset(chains)
    for _ in range(_TRIES):
        with engine.begin() as connection:
            present = lock_for_tokens(connection)
            if wanted <= present:
                yield connection, present
                return
        with engine.begin() as connection:
            add(connection, wanted)
    raise RuntimeError("a chain of keys was removed again and again while it was about to be used")


def lock_for_tokens(connection: Connection) -> frozenset[str]:
    """Wait until no sighting of an unknown token is being written, and keep it so until the
    transaction ends; returns every chain there is."""
    _lock(connection, "SHARE")
    return all_chains(connection)


def lock_for_sightings(connection: Connection) -> None:
    """Wait until no token is being written, and keep it so until the transaction ends."""
    _lock(connection, "ROW EXCLUSIVE")


def remove_unused(engine: Engine, keep: Iterable[str]) -> list[str]:
    """Remove the chains that no digest is made with, except `keep`; returns them, sorted."""
    kept = frozenset(keep)
    with engine.begin() as connection:
        if not _unused(connection) - kept:
            return []
    with engine.begin() as connection:
        _lock(connection, "EXCLUSIVE")
        gone = sorted(_unused(connection) - kept)
        connection.execute(delete(digest_chains).where(digest_chains.c.key_id.in_(gone)))
    return gone


def _unused(connection: Connection) -> frozenset[str]:
    used = union(select(tokens.c.key_id).distinct(), select(unknown_digests.c.key_id).distinct())
    return all_chains(connection) - frozenset(connection.execute(used).scalars())


def _lock(connection: Connection, mode: str) -> None:
    if connection.dialect.name == POSTGRESQL:
        connection.execute(text(f"LOCK TABLE digest_chains IN {mode} MODE"))
