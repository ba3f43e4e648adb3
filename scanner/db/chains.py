"""The chains of keys that digests are made with, and the order in which they may change.

A look-up tries every chain that stands here, so a chain is committed before any row uses it and
goes only when none does. And a token that is issued while a scan records that nobody knows it must
not miss its leak: whoever writes tokens and whoever writes sightings of unknown tokens keep out of
each other's way, each side with its own kind at once. On PostgreSQL a lock on this table, which
hardly ever changes, says so; look-ups wait for neither. SQLite has one writer at a time anyway.

A row names its chain. A chain that has become too long for that goes by a name made of its digest,
and stands in this table in full: so each turn of the pepper lengthens one row, not a million.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, delete, func, select, text, union

from scanner.db.clock import now_ms
from scanner.db.dialect import POSTGRESQL, upsert
from scanner.db.schema import digest_chains, tokens, unknown_digests

_LONGEST_NAME = 64  # characters, as the columns that hold it
_LONG = "~"  # begins the name of a longer chain; no key's id may hold it
_TRIES = 3  # each is lost only to somebody who removes the chain just then


def name_of(chain: str) -> str:
    """Return what rows call a chain: itself, if it is short enough."""
    if len(chain) <= _LONGEST_NAME:
        return chain
    return _LONG + hashlib.sha256(chain.encode()).hexdigest()[:40]


def is_full(name: str) -> bool:
    """True when a name is its chain."""
    return not name.startswith(_LONG)


_IN_FULL = func.coalesce(digest_chains.c.links, digest_chains.c.key_id)


def all_chains(connection: Connection) -> frozenset[str]:
    """Return every chain there is."""
    return frozenset(connection.execute(select(_IN_FULL)).scalars())


def by_name(connection: Connection, names: Iterable[str] | None = None) -> dict[str, str]:
    """Return name -> chain of those that are there: of all, or of `names`."""
    query = select(digest_chains.c.key_id, _IN_FULL)
    if names is not None:
        query = query.where(digest_chains.c.key_id.in_(list(names)))
    return {row[0]: row[1] for row in connection.execute(query)}


def add(connection: Connection, chains: Iterable[str]) -> None:
    """Add chains that are missing."""
    now = now_ms(connection)
    rows = [
        {"key_id": name, "links": None if name == chain else chain, "created_at": now}
        for chain, name in ((chain, name_of(chain)) for chain in chains)
    ]
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
    kept = frozenset(map(name_of, keep))
    with engine.begin() as connection:
        if not _unused(connection) - kept:
            return []
    with engine.begin() as connection:
        _lock(connection, "EXCLUSIVE")
        names = _unused(connection) - kept
        gone = by_name(connection, names)
        connection.execute(delete(digest_chains).where(digest_chains.c.key_id.in_(names)))
    return sorted(gone.values())


def _unused(connection: Connection) -> frozenset[str]:
    used = union(select(tokens.c.key_id).distinct(), select(unknown_digests.c.key_id).distinct())
    return frozenset(by_name(connection)) - frozenset(connection.execute(used).scalars())


def _lock(connection: Connection, mode: str) -> None:
    if connection.dialect.name == POSTGRESQL:
        connection.execute(text(f"LOCK TABLE digest_chains IN {mode} MODE"))
