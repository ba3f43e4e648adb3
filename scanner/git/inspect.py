"""Reading and matching a pack, pure: bytes in, an inspection out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scanner.git.pack import Bounds, Buffer, PackReader
from scanner.git.provenance import Commit, Origin, parse_commit, trace
from scanner.matcher.position import Scans, Spot, spots
from scanner.model import Inspection, LocatedCandidate, ObjectKind, Place

_MOST_TREE_BYTES = 256 << 20  # of trees kept for provenance; beyond it places lose their path
_NOWHERE: tuple[None] = (None,)


@dataclass(frozen=True, slots=True)
class Hit:
    """An object with candidates."""

    object_id: str
    kind: ObjectKind
    spots: tuple[Spot, ...]


def inspect_pack(
    pack: Buffer, matcher: Scans, bounds: Bounds | None = None, hash_size: int = 20
) -> Inspection:
    """Match every object of a pack: files, but also messages, authors and the names in trees.

    Errors: `MalformedPackError`. Every bound that was met is in the inspection's `partial`.
    """
    bounds = bounds or Bounds()
    reader = PackReader(pack, bounds, hash_size)
    try:
        return _inspect(reader, matcher, bounds.found, hash_size)
    finally:
        reader.close()


def _inspect(reader: PackReader, matcher: Scans, most: int, hash_size: int) -> Inspection:
    commits: list[Commit] = []
    trees: dict[str, bytes] = {}
    hits: dict[str, Hit] = {}
    objects = blobs = size = scanned = tree_bytes = found = dropped = 0
    for item in reader.objects():
        objects += 1
        blobs += item.kind is ObjectKind.BLOB
        data = item.data
        if data is None:
            continue
        size += len(data)
        scanned += len(data)
        if item.kind is ObjectKind.COMMIT:
            commits.append(parse_commit(item.id, data))
        elif item.kind is ObjectKind.TREE and tree_bytes + len(data) <= _MOST_TREE_BYTES:
            tree_bytes += len(data)
            trees[item.id] = data
        candidates = matcher.scan(data)
        if candidates and item.id not in hits:
            kept = candidates[: most - found]
            found += len(kept)
            dropped += len(candidates) - len(kept)
            if kept:
                hits[item.id] = Hit(item.id, item.kind, spots(data, kept))
    located, more = locate(hits.values(), commits, trees, most, hash_size)
    partial = reader.partial
    if dropped + more:
        partial = (*partial, f"too-many-candidates: {dropped + more}")
    return Inspection(located, objects, blobs, size, scanned, partial)


def locate(
    hits: Iterable[Hit],
    commits: Sequence[Commit],
    trees: dict[str, bytes],
    most: int,
    hash_size: int,
) -> tuple[tuple[LocatedCandidate, ...], int]:
    """Give every hit its places, at most `most`; returns them and how many were too many."""
    hits = tuple(hits)
    wanted = {hit.object_id for hit in hits if hit.kind in (ObjectKind.BLOB, ObjectKind.TREE)}
    origins = trace(wanted, commits, trees, hash_size) if wanted else {}
    by_id = {commit.id: commit for commit in commits}
    located: list[LocatedCandidate] = []
    dropped = 0
    for hit in hits:
        origin = origins.get(hit.object_id)
        for spot in hit.spots:
            for place in _places(hit, spot, origin, by_id.get(hit.object_id)):
                if len(located) < most:
                    located.append(LocatedCandidate(spot.candidate, place))
                else:
                    dropped += 1
    return tuple(located), dropped


def _places(hit: Hit, spot: Spot, origin: Origin | None, itself: Commit | None) -> Iterator[Place]:
    commit = itself if origin is None else origin.commit
    paths: Sequence[str | None] = _NOWHERE
    if origin is not None and hit.kind is ObjectKind.BLOB:
        paths = origin.paths
    for path in paths:
        yield Place(
            object_id=hit.object_id,
            kind=hit.kind,
            path=path,
            commit=commit.id if commit else None,
            committed_at=commit.committed_at if commit else None,
            line=spot.line,
            column=spot.column,
        )
