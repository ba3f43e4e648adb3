"""Rotating the pepper without the tokens: what is there is wrapped under the newest key.

A digest under `k1` becomes one under `k1>k2`. Look-ups go on meanwhile: the new chain is committed
before any row uses it, each batch is a transaction, and each row is changed only while it is as it
was read. So it may be stopped at any point, run again, and run twice at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, delete, select, tuple_, update

from scanner.db import audit, chains
from scanner.db.dialect import upsert
from scanner.db.schema import tokens, unknown_digests
from scanner.model import AuditAction
from scanner.stores.digests import DigestRing, Peppers, keys_of, require_keys

_BATCH = 2_000  # rows a transaction: others get their turn between two


@dataclass(slots=True)
class Progress:
    """How far it is."""

    tokens: int = 0  # digests of tokens that were wrapped
    unknown: int = 0  # digests of tokens that no store knows


@dataclass(frozen=True, slots=True)
class Wrapped:
    """What was done. `needed`: old keys that stay in the ring, `free`: those that may go."""

    progress: Progress
    newest: str
    removed: list[str] = field(default_factory=list)  # chains that no digest has any more
    needed: list[str] = field(default_factory=list)
    free: list[str] = field(default_factory=list)


def wrap_digests(
    engine: Engine,
    peppers: Peppers,
    *,
    actor: str,
    report: Callable[[Progress], None] = lambda _: None,
    batch: int = _BATCH,
) -> Wrapped:
    """Wrap every digest of an older chain under the newest pepper; `report` hears of each batch.

    Errors: `FinalError` when a chain would become too long (nothing is changed then),
    `StoreUnavailableError` when a pepper is missing.
    """
    ring = peppers.now()
    progress = Progress()
    while steps := _prepare(engine, ring, actor, is_first=progress == Progress()):
        before = (progress.tokens, progress.unknown)
        for wrap in (_wrap_tokens, _wrap_unknown):
            wrap(engine, ring, steps, progress, report, batch)
        if (progress.tokens, progress.unknown) == before:
            break  # what these chains were for is gone
    removed = chains.remove_unused(engine, [ring.newest])
    with engine.begin() as connection:
        present = chains.all_chains(connection)
        named = {name for chain in present for name in keys_of(chain)}
        others = [key.id for key in ring.peppers if key.id != ring.newest]
        done = Wrapped(
            progress,
            ring.newest,
            removed,
            needed=[name for name in others if name in named],
            free=[name for name in others if name not in named],
        )
        if progress != Progress() or removed:
            audit.record(
                connection,
                AuditAction.DIGESTS_WRAPPED,
                actor=actor,
                key=ring.newest,
                tokens=progress.tokens,
                unknown=progress.unknown,
                removed_chains=removed,
            )
    return done


@dataclass(frozen=True, slots=True)
class _Step:
    """From one chain to the next."""

    old: str
    new: str


_Steps = dict[str, _Step]  # by the old chain's name, which rows have


def _prepare(engine: Engine, ring: DigestRing, actor: str, *, is_first: bool) -> _Steps:
    """Commit the chains that are to come; returns a step for each chain that has rows."""
    with engine.begin() as connection:
        present = chains.by_name(connection)
        require_keys(ring, present.values())
        steps = {
            name: _Step(chain, ring.wrapped(chain))
            for name, chain in sorted(present.items())
            if keys_of(chain)[-1] != ring.newest and _has_rows(connection, name)
        }
        chains.add(connection, sorted({step.new for step in steps.values()}))
        if steps and is_first:
            audit.record(
                connection,
                AuditAction.DIGESTS_WRAP_STARTED,
                actor=actor,
                key=ring.newest,
                chains=sorted(step.old for step in steps.values()),
            )
    return steps


def _has_rows(connection: Connection, name: str) -> bool:
    return any(
        connection.execute(select(table.c.key_id).where(table.c.key_id == name).limit(1)).first()
        for table in (tokens, unknown_digests)
    )


_WRAP = (
    update(tokens)
    .where(
        tokens.c.id == bindparam("of_id"),
        tokens.c.key_id == bindparam("old_key"),
        tokens.c.digest == bindparam("old_digest"),
    )
    .values(key_id=bindparam("new_key"), digest=bindparam("new_digest"))
)


def _continued(ring: DigestRing, step: _Step, digest: str) -> str:
    return ring.continued(step.new, step.old, digest)


def _wrap_tokens(
    engine: Engine,
    ring: DigestRing,
    steps: _Steps,
    progress: Progress,
    report: Callable[[Progress], None],
    batch: int,
) -> None:
    last = ""
    while True:
        with engine.begin() as connection:
            rows = connection.execute(
                select(tokens.c.id, tokens.c.key_id, tokens.c.digest)
                .where(tokens.c.id > last, tokens.c.key_id.in_(sorted(steps)))
                .order_by(tokens.c.id)
                .limit(batch)
            ).all()
            if not rows:
                return
            done = connection.execute(
                _WRAP,
                [
                    {
                        "of_id": row.id,
                        "old_key": row.key_id,
                        "old_digest": row.digest,
                        "new_key": chains.name_of(steps[row.key_id].new),
                        "new_digest": _continued(ring, steps[row.key_id], row.digest),
                    }
                    for row in rows
                ],
            )
        last = rows[-1].id
        progress.tokens += done.rowcount
        report(progress)


def _wrap_unknown(
    engine: Engine,
    ring: DigestRing,
    steps: _Steps,
    progress: Progress,
    report: Callable[[Progress], None],
    batch: int,
) -> None:
    order = (unknown_digests.c.digest, unknown_digests.c.key_id, unknown_digests.c.sighting_id)
    last: Sequence[str] = ("", "", "")
    while True:
        with engine.begin() as connection:
            # A token that is issued just now must find its sighting in one form or the other.
            chains.lock_for_sightings(connection)
            rows = connection.execute(
                select(*order)
                .where(tuple_(*order) > tuple_(*last), unknown_digests.c.key_id.in_(sorted(steps)))
                .order_by(*order)
                .limit(batch)
            ).all()
            if not rows:
                return
            _replace(connection, ring, steps, rows)
        last = tuple(rows[-1])
        progress.unknown += len(rows)
        report(progress)


def _replace(connection: Connection, ring: DigestRing, steps: _Steps, rows: Sequence[Any]) -> None:
    connection.execute(
        upsert(connection, unknown_digests).on_conflict_do_nothing(),
        [
            {
                "digest": _continued(ring, steps[row.key_id], row.digest),
                "key_id": chains.name_of(steps[row.key_id].new),
                "sighting_id": row.sighting_id,
            }
            for row in rows
        ],
    )
    connection.execute(
        delete(unknown_digests).where(
            unknown_digests.c.digest == bindparam("of_digest"),
            unknown_digests.c.key_id == bindparam("of_key"),
            unknown_digests.c.sighting_id == bindparam("of_sighting"),
        ),
        [
            {"of_digest": row.digest, "of_key": row.key_id, "of_sighting": row.sighting_id}
            for row in rows
        ],
    )
