"""Importing digests of tokens that were issued elsewhere, by the million.

A batch is one transaction: what is known already is left as it is, what is new is inserted, and
what of it was seen in a leak before meets its incident there and then (law 7). So an import that
was stopped is simply run again. Reading goes on while the database works on the last batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from scanner.db import audit, chains
from scanner.db.inserts import count_anew
from scanner.db.schema import organisations, owners, tokens
from scanner.errors import ConflictError
from scanner.model import AuditAction
from scanner.stores.digests import DigestRing, Peppers
from scanner.stores.import_batch import ImportBatch, insert_tokens
from scanner.stores.import_owners import ImportedOwners
from scanner.stores.importing import Line, Reading, Rejected, read_lines
from scanner.stores.rejected_rows import RejectedRows

_BATCH = 10_000
_TRIES = 5  # of a batch; each is lost only to another import of the same tokens


@dataclass(slots=True)
class Outcome:
    """What became of a file's rows."""

    file_digest: str  # SHA-256
    imported: int = 0
    known: int = 0  # were there already, and stay as they are
    rejected: int = 0
    raw: int = 0  # of the rejected: a raw token stood there
    met: int = 0  # sightings of leaks that joined an incident
    rejected_file: Path | None = None

    def counts(self) -> dict[str, int]:
        """All counts, by name."""
        names = ("imported", "known", "rejected", "raw", "met")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Importer:
    """Imports files; built by bootstrap. `redact` hides tokens in a text that is shown."""

    engine: Engine
    peppers: Peppers
    patterns: frozenset[str]
    holds_token: Callable[[bytes], bool]
    redact: Callable[[str], str]

    def run(
        self,
        path: Path,
        *,
        default_pattern: str | None = None,
        dry_run: bool = False,
        actor: str,
        report: Callable[[Outcome], None] = lambda _: None,
    ) -> Outcome:
        """Import a file; rejected rows go to FILE.rejected. `report` is called after each batch.

        Errors: `FinalError` for a file that is none of its kind; `OSError`; those of the database.
        """
        with path.open("rb") as file:
            outcome = Outcome(hashlib.file_digest(file, "sha256").hexdigest())
        ring = self.peppers.now()
        reading = Reading(ring, self.patterns, default_pattern, self.holds_token)
        if not dry_run:
            self._audit(AuditAction.IMPORT_STARTED, path, outcome, actor)
        with (
            ThreadPoolExecutor(1) as writer,
            RejectedRows(path, self.redact, dry_run=dry_run) as refused,
        ):
            pending: Future[None] | None = None
            known_owners = ImportedOwners()
            for lines in _batches(_taken(read_lines(path, reading), outcome, refused)):
                if pending is not None:
                    pending.result()
                    report(outcome)
                work = self._count if dry_run else self._write
                pending = writer.submit(work, lines, ring, known_owners, outcome)
            if pending is not None:
                pending.result()
                report(outcome)
            outcome.rejected_file = refused.path
        if outcome.imported and not dry_run:
            with self.engine.begin() as connection:
                count_anew(connection, tokens, owners, organisations)
        if not dry_run:
            self._audit(AuditAction.IMPORT_FINISHED, path, outcome, actor, **outcome.counts())
        return outcome

    def _audit(
        self, action: AuditAction, path: Path, outcome: Outcome, actor: str, **counts: Any
    ) -> None:
        with self.engine.begin() as connection:
            audit.record(
                connection,
                action,
                actor=actor,
                file=self.redact(path.name)[:200],
                sha256=outcome.file_digest,
                **counts,
            )

    def _count(
        self, lines: list[Line], ring: DigestRing, _owners: ImportedOwners, outcome: Outcome
    ) -> None:
        with self.engine.begin() as connection:
            batch = ImportBatch(lines, ring, chains.all_chains(connection))
            new = batch.new(connection)
        outcome.imported += len(new)
        outcome.known += len(lines) - len(new)

    def _write(
        self, lines: list[Line], ring: DigestRing, known_owners: ImportedOwners, outcome: Outcome
    ) -> None:
        for _ in range(_TRIES):
            try:
                with chains.issuing(self.engine, {ring.wrapped(line.start) for line in lines}) as (
                    connection,
                    known,
                ):
                    found = known_owners.of(connection, lines)
                    batch = ImportBatch(lines, ring, known)
                    new = batch.new(connection)
                    ids = insert_tokens(connection, new, found)
                    met = batch.meet(connection, ids)
            except ConflictError:
                continue  # another import was faster with one of them: now it is known
            known_owners.keep(found)
            outcome.imported += len(new)
            outcome.known += len(lines) - len(new)
            outcome.met += met
            return
        raise ConflictError("Other imports of the same tokens are running; try again later.")


def _taken(
    rows: Iterable[Line | Rejected], outcome: Outcome, refused: RejectedRows
) -> Iterator[Line]:
    for row in rows:
        if isinstance(row, Line):
            yield row
        else:
            outcome.rejected += 1
            outcome.raw += row.is_raw
            refused.add(row)


def _batches(lines: Iterator[Line]) -> Iterator[list[Line]]:
    while batch := list(islice(lines, _BATCH)):
        yield batch
