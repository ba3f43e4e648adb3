"""Taking work from a table: one batch at a time, its leases kept alive until it is done.

A lease is short, so that the work of a worker that is gone is another's within seconds; while work
goes on a thread renews it, however long a repository takes. A worker that hangs is ended from
outside, and then nobody renews.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import SQLAlchemyError

from scanner.db import holding, leases
from scanner.db.leases import Claim, Patience
from scanner.errors import name_of

log = logging.getLogger(__name__)

_RENEWALS = 3  # within a lease: two may fail

# Tables whose suspects have the next turn: batches would else never let them come.
_suspects_next: WeakKeyDictionary[Engine, set[str]] = WeakKeyDictionary()


class Found(IntEnum):
    """What there was to do; false when there was nothing."""

    NOTHING = 0
    ALL = 1  # and no more than was taken
    SOME = 2  # and more may wait


@dataclass(frozen=True, slots=True)
class Work:
    """What was taken. `found` counts rows that were parked instead of claimed, too."""

    claims: Sequence[Claim]
    found: Found


@contextmanager
def taken(
    engine: Engine,
    table: Table,
    patience: Patience,
    *,
    limit: int,
    on_parked: Callable[[Connection, Mapping[str, Any]], None],
    lanes: Sequence[int] | None = None,
) -> Iterator[Work]:
    """Take a batch of rows in good standing, or one suspect row alone: they take turns.

    Claims are committed before the block begins and kept alive until it ends, or are ended.
    `on_parked` gets a row that was parked instead, in the transaction that parks it.
    """
    turns = _suspects_next.setdefault(engine, set())
    first = table.name in turns
    work = Work((), Found.NOTHING)
    with engine.begin() as connection:
        for suspect in (first, not first):
            claims, parked = leases.claim(
                connection, table, patience, limit=limit, suspect=suspect, lanes=lanes
            )
            for row in parked:
                on_parked(connection, row)
            if claims or parked:
                # What comes one by one may have others behind it, as a full batch may.
                is_all = not suspect and len(claims) < limit
                work = Work(claims, Found.ALL if is_all else Found.SOME)
                break
    if work.found:
        (turns.discard if suspect else turns.add)(table.name)
    with _kept(engine, table, patience, work.claims):
        yield work


@contextmanager
def _kept(
    engine: Engine, table: Table, patience: Patience, claims: Sequence[Claim]
) -> Iterator[None]:
    if not claims:
        yield
        return
    done = threading.Event()

    def keep() -> None:
        while not done.wait(patience.lease_ms / 1000 / _RENEWALS):
            try:
                holding.renew(engine, table, claims, patience)
            except SQLAlchemyError as error:  # away: the next time may be in time
                log.warning("leases of %s were not renewed: %s", table.name, name_of(error))

    keeper = threading.Thread(target=keep, name=f"{table.name}-leases", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
