"""A batch of an import: which of its tokens are new, and their rows."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter

from sqlalchemy import Connection, select

from scanner.db import late
from scanner.db.clock import now_ms
from scanner.db.inserts import insert_many
from scanner.db.schema import new_id, tokens, unknown_digests
from scanner.db.tokens import ACTIVE, among, many
from scanner.stores.digests import DigestRing, begins_with, require_keys
from scanner.stores.import_owners import NamedIds
from scanner.stores.importing import Line

_COLUMNS = (
    "id", "organisation_id", "owner_id", "name", "pattern", "scopes", "mask", "digest", "key_id",
    "valid_from", "valid_to", "state", "created_at", "external_id",
)  # fmt: skip


class ImportBatch:
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


def insert_tokens(
    connection: Connection, new: Mapping[str, tuple[Line, str]], found: NamedIds
) -> dict[str, str]:
    """Insert what `ImportBatch.new` gave; returns id by digest. Errors: `ConflictError` when
    another import was faster with one of them."""
    now = now_ms(connection)
    ids = dict(zip(sorted(new), _ids(len(new), now), strict=True))
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
            for digest, (line, chain) in sorted(new.items(), key=itemgetter(0))
        ],
    )
    return ids


def _ids(count: int, now: int) -> Iterator[str]:
    """Ids that grow with time: those of a batch stand together in each index, where random ones
    would each fetch and write a page of their own."""
    time, size = f"{now:012x}", len(new_id()) - 12
    text = secrets.token_hex(size * count // 2)
    return iter(sorted(time + text[begin : begin + size] for begin in range(0, len(text), size)))
