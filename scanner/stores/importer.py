"""Importing digests of tokens that were issued elsewhere, by the million.

A batch is one transaction: what is known already is left as it is, what is new is inserted, and
what of it was seen in a leak before meets its incident there and then (law 7). So an import that
was stopped is simply run again. Reading goes on while the database works on the last batch.
"""

from __future__ import annotations

import csv
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Connection, Engine, select

from scanner.db import audit, chains, late
from scanner.db.clock import now_ms
from scanner.db.dialect import upsert
from scanner.db.inserts import insert_many
from scanner.db.schema import new_id, organisations, owners, tokens, unknown_digests
from scanner.db.tokens import ACTIVE, among, many
from scanner.errors import ConflictError
from scanner.model import AuditAction
from scanner.stores.accounts import PERSON
from scanner.stores.digests import DigestRing, Peppers, begins_with, require_keys
from scanner.stores.importing import Line, Reading, Rejected, read_lines

_BATCH = 10_000
_TRIES = 5  # of a batch; each is lost only to another import of the same tokens
_SHOWN = ("name", "organisation", "owner", "external_id")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS = (
    "id", "organisation_id", "owner_id", "name", "pattern", "scopes", "mask", "digest", "key_id",
    "valid_from", "valid_to", "state", "created_at", "external_id",
)  # fmt: skip


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
            _RejectedRows(path, self.redact, dry_run=dry_run) as refused,
        ):
            pending: Future[None] | None = None
            known_owners = _Owners()
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
        self, lines: list[Line], ring: DigestRing, _owners: _Owners, outcome: Outcome
    ) -> None:
        with self.engine.begin() as connection:
            batch = _Batch(lines, ring, chains.all_chains(connection))
            new = batch.new(connection)
        outcome.imported += len(new)
        outcome.known += len(lines) - len(new)

    def _write(
        self, lines: list[Line], ring: DigestRing, known_owners: _Owners, outcome: Outcome
    ) -> None:
        for _ in range(_TRIES):
            try:
                with chains.issuing(self.engine, {ring.wrapped(line.start) for line in lines}) as (
                    connection,
                    known,
                ):
                    found = known_owners.of(connection, lines)
                    batch = _Batch(lines, ring, known)
                    new = batch.new(connection)
                    ids = _insert(connection, new, found)
                    met = batch.meet(connection, ids)
            except ConflictError:
                continue  # another import was faster with one of them: now it is known
            known_owners.keep(found)
            outcome.imported += len(new)
            outcome.known += len(lines) - len(new)
            outcome.met += met
            return
        raise ConflictError("Other imports of the same tokens are running; try again later.")


class _Batch:
    """Lines and every digest that their tokens may be known by, under whatever chain of keys."""

    def __init__(self, lines: Iterable[Line], ring: DigestRing, known: frozenset[str]) -> None:
        require_keys(ring, known)
        self._longer: dict[str, list[str]] = {}
        # The digest under the newest key leads; others only where older chains go on from it.
        self.lines: dict[str, tuple[Line, str]] = {}
        self._others: dict[str, str] = {}
        for line in lines:
            if line.start not in self._longer:
                target = ring.wrapped(line.start)
                same = [chain for chain in known if begins_with(chain, line.start)]
                self._longer[line.start] = [target, *sorted(set(same) - {target})]
            target, *older = self._longer[line.start]
            digest = ring.continued(target, line.start, line.digest)
            self.lines.setdefault(digest, (line, target))
            for chain in older:
                self._others[ring.continued(chain, line.start, line.digest)] = digest

    def new(self, connection: Connection) -> dict[str, tuple[Line, str]]:
        """Return the lines whose tokens are not there: by digest, with their chain."""
        dialect = connection.dialect.name
        query = select(tokens.c.digest).where(among(dialect, tokens.c.digest, "digests"))
        asked = many(dialect, [*self.lines, *self._others])
        there = {
            self._others.get(digest, digest)
            for digest in connection.execute(query, {"digests": asked}).scalars()
        }
        return {digest: line for digest, line in self.lines.items() if digest not in there}

    def meet(self, connection: Connection, ids: Mapping[str, str]) -> int:
        """Let sightings of the tokens that were inserted (id by digest) join; returns how many."""
        if connection.execute(select(unknown_digests.c.digest).limit(1)).first() is None:
            return 0
        others = {other: ids[digest] for other, digest in self._others.items() if digest in ids}
        return late.join(connection, late.meetings(connection, {**ids, **others}))


def _insert(
    connection: Connection, new: Mapping[str, tuple[Line, str]], found: _Found
) -> dict[str, str]:
    now = now_ms(connection)
    ids = dict(zip(new, _ids(len(new)), strict=True))
    insert_many(
        connection,
        tokens,
        _COLUMNS,
        [
            (
                ids[digest],
                found.organisations[line.organisation],
                None if line.owner is None else found.owners[line.organisation, line.owner],
                line.name,
                line.pattern,
                line.scopes,
                line.mask,
                digest,
                chain,
                now if line.valid_from is None else line.valid_from,
                line.valid_to,
                ACTIVE,
                now,
                line.external_id,
            )
            for digest, (line, chain) in new.items()
        ],
    )
    return ids


def _ids(count: int) -> Iterator[str]:
    size = len(new_id())
    text = secrets.token_hex(size * count // 2)
    return (text[begin : begin + size] for begin in range(0, len(text), size))


@dataclass(slots=True)
class _Found:
    organisations: dict[str, str] = field(default_factory=dict)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)


class _Owners:
    """Ids of organisations and owners by name, made where they are missing."""

    def __init__(self) -> None:
        self._kept = _Found()

    def keep(self, found: _Found) -> None:
        """Remember what was found or made: its transaction is committed."""
        self._kept.organisations.update(found.organisations)
        self._kept.owners.update(found.owners)

    def of(self, connection: Connection, lines: Iterable[Line]) -> _Found:
        """Return the ids for these lines."""
        found = _Found()
        wanted: dict[str, dict[str, str | None]] = {}
        for line in lines:
            known = self._kept.organisations.get(line.organisation)
            if known is not None:
                found.organisations[line.organisation] = known
            of_it = wanted.setdefault(line.organisation, {})
            if line.owner is None:
                continue
            owner = self._kept.owners.get((line.organisation, line.owner))
            if owner is None:
                of_it.setdefault(line.owner, line.email)
            else:
                found.owners[line.organisation, line.owner] = owner
        for organisation in sorted(wanted):  # in one order everywhere: nobody waits in a circle
            if organisation not in found.organisations:
                found.organisations[organisation] = _organisation(connection, organisation)
            within = found.organisations[organisation]
            for name, owner_id in _owners_of(connection, within, wanted[organisation]).items():
                found.owners[organisation, name] = owner_id
        return found


def _organisation(connection: Connection, name: str) -> str:
    values = {"id": new_id(), "name": name, "created_at": now_ms(connection)}
    connection.execute(upsert(connection, organisations).values(values).on_conflict_do_nothing())
    query = select(organisations.c.id).where(organisations.c.name == name)
    return str(connection.execute(query).scalar_one())


def _owners_of(
    connection: Connection, organisation_id: str, wanted: Mapping[str, str | None]
) -> dict[str, str]:
    if not wanted:
        return {}
    dialect = connection.dialect.name
    query = select(owners.c.name, owners.c.id).where(
        owners.c.organisation_id == organisation_id, among(dialect, owners.c.name, "names")
    )
    names = {"names": many(dialect, wanted)}
    there = {row[0]: row[1] for row in connection.execute(query, names)}
    missing = sorted(set(wanted) - set(there))
    if missing:
        rows = [
            {
                "id": new_id(),
                "organisation_id": organisation_id,
                "name": name,
                "email": wanted[name],
                "kind": PERSON,
            }
            for name in missing
        ]
        connection.execute(upsert(connection, owners).on_conflict_do_nothing(), rows)
        there = {row[0]: row[1] for row in connection.execute(query, names)}
    return there


def _taken(
    rows: Iterable[Line | Rejected], outcome: Outcome, refused: _RejectedRows
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


class _RejectedRows:
    """FILE.rejected: the number of each row, why, and what may be shown of it."""

    def __init__(self, path: Path, redact: Callable[[str], str], *, dry_run: bool) -> None:
        self._path = path.with_name(f"{path.name}.rejected")
        self._redact, self._dry_run = redact, dry_run
        self._file: TextIO | None = None
        self.path: Path | None = None

    def __enter__(self) -> _RejectedRows:
        if not self._dry_run:
            self._path.unlink(missing_ok=True)  # of an earlier run
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: Rejected) -> None:
        """Write a row down."""
        if self._dry_run:
            return
        if self._file is None:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(descriptor, "w", newline="", encoding="utf-8")
            csv.writer(self._file).writerow(("line", "reason", *_SHOWN))
            self.path = self._path
        shown = ("" if row.is_raw else row.shown.get(name, "") for name in _SHOWN)
        line = (row.number, *map(self._harmless, (row.reason, *shown)))
        csv.writer(self._file).writerow(line)

    def _harmless(self, text: str) -> str:
        """What a spreadsheet would run, it shows; no token is written, whatever column it is in."""
        clean = text.encode("utf-8", "backslashreplace").decode()
        shown = self._redact(clean.replace("\0", "\ufffd"))[:200]
        return f"'{shown}" if shown.startswith(_FORMULA) else shown
