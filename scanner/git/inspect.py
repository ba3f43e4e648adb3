"""Reading and matching a pack, pure: bytes in, an inspection out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scanner.archives.bounds import TOO_LARGE, ArchiveBounds
from scanner.examine import Examined, examine
from scanner.git.pack import Bounds, Buffer, PackReader
from scanner.git.provenance import Commit, Origin, parse_commit, trace
from scanner.matcher.position import Scans, Spot
from scanner.model import Inspection, LocatedCandidate, ObjectKind, Place

if TYPE_CHECKING:  # the parsing child loads no more than it needs
    from scanner.ports import KnownBlobs

_MOST_TREE_BYTES = 256 << 20  # of trees kept for provenance; beyond it places lose their path
_NOWHERE: tuple[None] = (None,)
_ARCHIVES = ArchiveBounds()
_ALL_TOO_LARGE = "archives-too-large"  # those of one pack together


# Sizes in bytes from which the ledger pays (docs/benchmarks.md): below them matching costs less
# than asking and remembering. What is smaller, no ledger can hide.
LARGE = 256 << 10  # of a file that may be known
WORTH_ASKING = 4 << 20  # of such files together: one question
_MOST_WAITING = 8 << 20  # of them in memory until they are asked about


@dataclass(frozen=True, slots=True)
class Hit:
    """An object with candidates."""

    object_id: str
    kind: ObjectKind
    spots: tuple[Spot, ...]


def inspect_pack(
    pack: Buffer,
    matcher: Scans,
    bounds: Bounds | None = None,
    hash_size: int = 20,
    known: KnownBlobs | None = None,
) -> Inspection:
    """Match every object of a pack: files, but also messages, authors and the names in trees.

    Large files that are `known` are not matched; without it nothing is asked, nor said to be bare.
    Errors: `MalformedPackError`. Every bound that was met is in the inspection's `partial`.
    """
    bounds = bounds or Bounds()
    reader = PackReader(pack, bounds, hash_size)
    try:
        return _inspect(reader, matcher, bounds, hash_size, known)
    finally:
        reader.close()


def _inspect(
    reader: PackReader, matcher: Scans, bounds: Bounds, hash_size: int, known: KnownBlobs | None
) -> Inspection:
    commits: list[Commit] = []
    trees: dict[str, bytes] = {}
    matching = _Matching(matcher, bounds)
    large = None if known is None else _LargeFiles(matching, known)
    objects = blobs = size = tree_bytes = 0
    for item in reader.objects():
        objects += 1
        blobs += item.kind is ObjectKind.BLOB
        data = item.data
        if data is None:
            continue
        size += len(data)
        if item.kind is ObjectKind.COMMIT:
            commits.append(parse_commit(item.id, data))
        elif item.kind is ObjectKind.TREE and tree_bytes + len(data) <= _MOST_TREE_BYTES:
            tree_bytes += len(data)
            trees[item.id] = data
        if large is not None and len(data) >= LARGE and item.kind is ObjectKind.BLOB:
            large.add(item.id, data)
        else:
            matching.match(item.id, item.kind, data)
    if large is not None:
        large.settle()
    located, more = locate(matching.hits.values(), commits, trees, bounds.found, hash_size)
    partial = (*reader.partial, *(f"{reason}: {n}" for reason, n in matching.met.items()))
    if matching.dropped + more:
        partial = (*partial, f"too-many-candidates: {matching.dropped + more}")
    return Inspection(
        located, objects, blobs, size, matching.size, partial,
        known_blobs=0 if large is None else large.known_blobs,
        bare=() if large is None else tuple(large.bare),
    )  # fmt: skip


class _Matching:
    """Hands objects to the matcher and keeps what has candidates, up to a bound of them."""

    def __init__(self, matcher: Scans, bounds: Bounds) -> None:
        self._matcher = matcher
        self._left = bounds.found
        self._unpackable = bounds.unpacked_bytes
        self._archives = _within(self._unpackable)
        self.met: Counter[str] = Counter()  # bounds on archives
        self.hits: dict[str, Hit] = {}
        self.size = 0  # bytes matched
        self.dropped = 0  # candidates

    def match(self, object_id: str, kind: ObjectKind, data: bytes) -> bool:
        """Match one object; returns whether nothing at all matched in it."""
        self.size += len(data)
        archives = self._archives if kind is ObjectKind.BLOB else None
        examined = examine(data, self._matcher, self._left, archives)
        if examined.unpacked or examined.met:
            self._account(examined)
        if not examined.is_bare and object_id not in self.hits:
            self._left -= len(examined.spots)
            self.dropped += examined.dropped
            if examined.spots:
                self.hits[object_id] = Hit(object_id, kind, examined.spots)
        return examined.is_bare

    def _account(self, examined: Examined) -> None:
        """Count what archives took, and what they could not have."""
        met = Counter(examined.met)
        if self._unpackable < _ARCHIVES.total_bytes:  # because of what else is in the pack
            met[_ALL_TOO_LARGE] = met.pop(TOO_LARGE, 0)
        self.met += met
        self._unpackable -= examined.unpacked
        self._archives = _within(self._unpackable)


def _within(left: int) -> ArchiveBounds:
    if left >= _ARCHIVES.total_bytes:
        return _ARCHIVES
    return replace(_ARCHIVES, total_bytes=max(0, left))


class _LargeFiles:
    """Large files, which are matched unless they are known. A pack with few of them is left alone:
    it neither asks nor says what is bare."""

    def __init__(self, matching: _Matching, known: KnownBlobs) -> None:
        self._matching = matching
        self._known = known
        self._waiting: list[tuple[str, bytes]] = []
        self._size = 0
        self._is_worth = False
        self.known_blobs = 0
        self.bare: dict[str, None] = {}  # a set in order

    def add(self, object_id: str, data: bytes) -> None:
        self._waiting.append((object_id, data))
        self._size += len(data)
        if self._size >= _MOST_WAITING:
            self.settle()

    def settle(self) -> None:
        """Ask about those that wait, and match what nobody knows."""
        known: Collection[str] = ()
        if self._size >= WORTH_ASKING:
            self._is_worth = True
            known = self._known(list(dict(self._waiting)))
        for object_id, data in self._waiting:
            if object_id in known:
                self.known_blobs += 1
            elif self._matching.match(object_id, ObjectKind.BLOB, data) and self._is_worth:
                self.bare[object_id] = None
        self._waiting.clear()
        self._size = 0


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
            path=spot.path(path),
            commit=commit.id if commit else None,
            committed_at=commit.committed_at if commit else None,
            line=spot.line,
            column=spot.column,
        )
