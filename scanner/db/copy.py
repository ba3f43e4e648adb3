"""Move a whole installation to another database, in one transaction, and prove that it arrived.

Nobody else may have the source open meanwhile: what a worker wrote behind our back would be lost.
The target must hold nothing. It is filled, counted, compared, and its audit trail verified before
the one commit; whatever ends this earlier, a kill as well, leaves the target as it was. The source
is only read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Engine, Table, delete, inspect, literal, select

from scanner.db import audit, bulk
from scanner.db.dialect import POSTGRESQL, SQLITE
from scanner.db.fitting import Misfit, misfits
from scanner.db.schema import heartbeats, key_checks, metadata
from scanner.db.upgrade import has_current_schema, refuse_unreadable, upgrade
from scanner.errors import ConfigurationError, FinalError

_MOST_MISFITS = 20
_LOCK_SECONDS = 10.0
# What a start writes before there is anything to do; the source's own comes in its place.
_REPLACED = (key_checks, heartbeats)


class UnfitError(FinalError):
    """PostgreSQL refuses values of the source; `misfits` are the first of them."""

    def __init__(self, found: Sequence[Misfit]) -> None:
        super().__init__(
            "PostgreSQL refuses what these rows hold; nothing was copied. Mend them, then repeat."
        )
        self.misfits = found


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table that arrived whole; `digest` does not depend on the order of its rows."""

    name: str
    rows: int
    digest: str


def copy_database(
    source: Engine,
    target: Engine,
    on_table: Callable[[CopiedTable], None] = lambda _: None,
    *,
    lock_seconds: float = _LOCK_SECONDS,
) -> audit.Verification:
    """Copy everything; returns what `audit.verify` says of the trail on both sides alike.

    `on_table` hears of each table once it was compared; `lock_seconds` is the patience with others
    who use source or target. The source's engine must have no open connection. Errors:
    `ConfigurationError` when source or target are not as they must be, `UnfitError`, and
    `FinalError` when what arrived is not what was sent.
    """
    with refuse_unreadable(), bulk.alone(source, lock_seconds) as reading:
        if not has_current_schema(reading):
            raise ConfigurationError(
                "The database to copy is new, or of another version; run: patrol db upgrade"
            )
        if source.dialect.name == SQLITE and target.dialect.name == POSTGRESQL:
            found = tuple(islice(misfits(reading, metadata), _MOST_MISFITS))
            if found:
                raise UnfitError(found)
        with target.begin() as writing:
            _prepare(writing, lock_seconds)
            # The rows bring what triggers once made of them, such as their place in a queue.
            with bulk.without_triggers(writing):
                sent = [_send(reading, writing, table) for table in metadata.sorted_tables]
            bulk.continue_counters(writing)
            for one in sent:
                _compare(one, writing)
                on_table(one)
            before, after = audit.verify(reading), audit.verify(writing)
            if before != after:
                raise FinalError(
                    "The audit trail does not verify there as it does here; nothing was kept. "
                    "Run: patrol audit verify"
                )
        return after


def _prepare(writing: Connection, lock_seconds: float) -> None:
    """Bring the target to our schema, hold it, and see that it is empty."""
    present = set(inspect(writing).get_table_names())
    if "alembic_version" not in present and not present.isdisjoint(metadata.tables):
        raise ConfigurationError(
            "The target holds another application's tables; give Patrol a database of its own."
        )
    upgrade(writing)
    bulk.hold(writing, lock_seconds)
    for table in metadata.sorted_tables:
        if table in _REPLACED:
            writing.execute(delete(table))
        elif writing.execute(select(literal(1)).select_from(table).limit(1)).first():
            raise ConfigurationError(
                f"The target is not empty, it has {table.name}; copy into a new database."
            )


def _send(reading: Connection, writing: Connection, table: Table) -> CopiedTable:
    stock = _Stock()
    bulk.write(writing, table, stock.passing(bulk.read(reading, table)))
    return stock.of(table)


def _compare(sent: CopiedTable, writing: Connection) -> None:
    stock, table = _Stock(), metadata.tables[sent.name]
    for _ in stock.passing(bulk.read(writing, table)):
        pass
    if stock.of(table) != sent:
        raise FinalError(
            f"{sent.name}: what arrived ({stock.rows} rows) is not what was sent ({sent.rows}); "
            "nothing was kept."
        )


class _Stock:
    """Counts rows as they pass, and adds up their hashes: they come back in another order."""

    def __init__(self) -> None:
        self.rows, self._sum = 0, 0

    def passing(self, rows: Iterator[bulk.Row]) -> Iterator[bulk.Row]:
        for row in rows:
            canonical = json.dumps(row, default=_plain)
            digest = hashlib.sha256(canonical.encode()).digest()
            self.rows, self._sum = self.rows + 1, self._sum + int.from_bytes(digest)
            yield row

    def of(self, table: Table) -> CopiedTable:
        return CopiedTable(table.name, self.rows, f"{self._sum % (1 << 256):064x}")


def _plain(value: Any) -> dict[str, str]:
    return {"bytes": bytes(value).hex()}
