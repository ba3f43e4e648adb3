"""Reading and matching a pack, pure: bytes in, an inspection out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from scanner.git.pack import Bounds, PackReader
from scanner.git.provenance import Commit, Origin, parse_commit, trace
from scanner.model import Candidate, Inspection, LocatedCandidate, ObjectKind, Place

_MOST_FOUND = 20_000


class Scans(Protocol):
    """What inspection needs of a matcher."""

    def scan(self, data: bytes) -> list[Candidate]:
        """Return the candidates in `data`."""
        ...


def line_and_column(data: bytes, offset: int) -> tuple[int, int]:
    """Return the place of a byte offset, both from 1; columns count bytes."""
    return data.count(b"\n", 0, offset) + 1, offset - data.rfind(b"\n", 0, offset)


def inspect_pack(
    pack: bytes | memoryview, matcher: Scans, bounds: Bounds, hash_size: int = 20
) -> Inspection:
    """Match every object of a pack: files, but also messages, authors and the names in trees."""
    commits: list[Commit] = []
    trees: dict[str, bytes] = {}
    hits: list[tuple[str, ObjectKind, list[tuple[Candidate, int, int]]]] = []
    objects = blobs = size = scanned = found = 0
    partial: list[str] = []
    for item in PackReader(pack, bounds, hash_size).objects():
        objects += 1
        blobs += item.kind is ObjectKind.BLOB
        data = item.data
        if data is None:
            partial.append(f"an object is larger than {bounds.object_bytes} bytes")
            continue
        size += len(data)
        scanned += len(data)
        if item.kind is ObjectKind.COMMIT:
            commits.append(parse_commit(item.id, data))
        elif item.kind is ObjectKind.TREE:
            trees[item.id] = data
        candidates = matcher.scan(data)
        if candidates:
            kept = candidates[: _MOST_FOUND - found]
            found += len(kept)
            if len(kept) < len(candidates):
                partial.append(f"more than {_MOST_FOUND} candidates")
            hits.append((item.id, item.kind, [(c, *line_and_column(data, c.start)) for c in kept]))
    wanted = {
        object_id for object_id, kind, _ in hits if kind in (ObjectKind.BLOB, ObjectKind.TREE)
    }
    origins = trace(wanted, commits, trees, hash_size) if wanted else {}
    by_id = {commit.id: commit for commit in commits}
    located = [
        LocatedCandidate(candidate, place)
        for object_id, kind, spots in hits
        for candidate, line, column in spots
        for place in _places(object_id, kind, line, column, origins.get(object_id), by_id)
    ]
    return Inspection(tuple(located), objects, blobs, size, scanned, tuple(dict.fromkeys(partial)))


def _places(
    object_id: str,
    kind: ObjectKind,
    line: int,
    column: int,
    origin: Origin | None,
    commits: dict[str, Commit],
) -> Sequence[Place]:
    if kind is ObjectKind.COMMIT:
        return [
            Place(object_id, kind, None, object_id, commits[object_id].committed_at, line, column)
        ]
    if origin is None:
        return [Place(object_id, kind, line=line, column=column)]
    commit, when = origin.commit.id, origin.commit.committed_at
    paths = origin.paths if kind is ObjectKind.BLOB else [None]
    return [Place(object_id, kind, path, commit, when, line, column) for path in paths]
