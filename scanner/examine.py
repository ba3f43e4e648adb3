"""Everything that is in one object: its bytes, and the members of the archive it may be. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from scanner.archives.bounds import TOO_DEEP, ArchiveBounds, Budget
from scanner.archives.kind import Kind, tell
from scanner.archives.member import Member, bounded
from scanner.archives.office import office_text
from scanner.archives.opening import open_archive
from scanner.matcher.position import Scans, Spot, spots
from scanner.model import Candidate, Secret

OFFICE_TEXT = "office-text"  # an encoding: a text without the markup that cuts it up
_BOUNDS = ArchiveBounds()
_MOST_PATH = 2_048  # characters of a member's path, all archives together
_NAMES_BYTES = 1 << 18  # of names that are matched together

_Found = tuple[str, Secret]  # a pattern, and what matches it


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found in one object.

    `is_bare`: it was read completely, with every member, and nothing at all matched, not even what
    a filter then ruled out; the blob ledger may remember it. `dropped` candidates were beyond the
    bound asked for.
    """

    spots: tuple[Spot, ...] = ()
    is_bare: bool = True
    dropped: int = 0
    met: Mapping[str, int] = field(default_factory=dict)  # bounds: reason -> how often
    unpacked: int = 0  # bytes that came out of archives and were matched as well

    @property
    def partial(self) -> tuple[str, ...]:
        """Every bound that was met, as an inspection says it: "too-many-candidates: 3"."""
        met = dict(self.met)
        if self.dropped:
            met["too-many-candidates"] = self.dropped
        return tuple(f"{reason}: {count}" for reason, count in met.items())


_BARE = Examined()


def examine(
    data: bytes | memoryview, matcher: Scans, most: int, bounds: ArchiveBounds | None = _BOUNDS
) -> Examined:
    """Match `data`, the content of a file; at most `most` candidates are kept, the first ones.

    Archives are opened within `bounds`; None opens none. A view is copied only when something is in
    it: a reader may use one buffer for all its files.
    """
    candidates, is_bare = matcher.examine(data)
    kinds = tell(data) if bounds is not None else ()
    if kinds and bounds is not None:
        opened = _Opened(matcher, most, bounds, len(data))
        return opened.examine(bytes(data), kinds, candidates, is_bare)
    if not candidates:
        return _BARE if is_bare else Examined(is_bare=False)
    kept = candidates[:most]
    return Examined(spots(bytes(data), kept), is_bare, len(candidates) - len(kept))


class _Opened:
    """An archive, and all that was found inside."""

    def __init__(self, matcher: Scans, most: int, bounds: ArchiveBounds, size: int) -> None:
        self._matcher = matcher
        self._most = most
        self._budget = Budget(bounds, size)
        self._depth = bounds.depth
        self._spots: list[Spot] = []
        self._is_bare = True
        self._dropped = 0

    def examine(
        self, data: bytes, kinds: Sequence[Kind], candidates: list[Candidate], is_bare: bool
    ) -> Examined:
        """Return what is in the archive and in its members."""
        self._is_bare = is_bare
        told = self._open(data, kinds, "", 1)
        inside = len(self._spots)
        self._keep(data, told.others(candidates), "")
        found = (*self._spots[inside:], *self._spots[:inside])
        met = self._budget.met
        is_bare = self._is_bare and not met
        return Examined(found, is_bare, self._dropped, dict(met), self._budget.spent)

    def _open(self, data: bytes, kinds: Iterable[Kind], path: str, depth: int) -> _Told:
        told = _Told()
        names = _Names(self._matcher)
        for kind in kinds:
            for member in open_archive(data, kind, self._budget):
                inner = f"{path}!{member.name}" if path else member.name
                inner = bounded(inner, _MOST_PATH)
                if names.add(member.name, inner):
                    self._named(names, told)
                if member.data:
                    told.add(member, self._member(member, inner, depth))
        self._named(names, told)
        return told

    def _named(self, names: _Names, told: _Told) -> None:
        """Keep what stands in members' names."""
        found, is_bare = names.match()
        self._is_bare = self._is_bare and is_bare
        told.found.update((spot.candidate.pattern, spot.candidate.secret) for spot in found)
        self._take(found)

    def _member(self, member: Member, path: str, depth: int) -> set[_Found]:
        """Keep what is in a member, and return it."""
        data = member.data
        candidates, is_bare = self._matcher.examine(data)
        self._is_bare = self._is_bare and is_bare
        told = _Told()
        if kinds := tell(data):
            if depth < self._depth:
                self._budget.hold(len(data))
                told = self._open(data, kinds, path, depth + 1)
                self._budget.hold(-len(data))
            else:
                self._budget.note(TOO_DEEP)
        else:
            candidates += self._office(data, candidates)
        candidates = told.others(candidates)
        self._keep(data, candidates, path)
        return told.found | {(one.pattern, one.secret) for one in candidates}

    def _office(self, data: bytes, plain: Iterable[Candidate]) -> list[Candidate]:
        """Return what only the text of an office document's part shows."""
        text = office_text(data)
        if text is None:
            return []
        candidates, is_bare = self._matcher.examine(text.text)
        self._is_bare = self._is_bare and is_bare
        known = {(one.pattern, one.start, one.end) for one in plain}
        found = []
        for one in candidates:
            start, end = text.source(one.start), text.source(one.end - 1) + 1
            if (one.pattern, start, end) not in known:
                found.append(replace(one, start=start, end=end, encoding=OFFICE_TEXT))
        return found

    def _keep(self, data: bytes, candidates: Sequence[Candidate], path: str) -> None:
        if not candidates:
            return
        candidates = sorted(candidates, key=lambda one: (one.start, one.pattern))
        kept = candidates[: self._most - len(self._spots)]
        self._dropped += len(candidates) - len(kept)
        found = spots(data, kept)
        self._spots += (replace(spot, member=path) for spot in found) if path else found

    def _take(self, found: list[Spot]) -> None:
        kept = found[: self._most - len(self._spots)]
        self._dropped += len(found) - len(kept)
        self._spots += kept


class _Told:
    """What the members of an archive have told already, so that its raw bytes need not again."""

    def __init__(self) -> None:
        self.found: set[_Found] = set()
        self._ranges: list[tuple[int, int]] = []  # of the archive: members as they are

    def add(self, member: Member, found: Iterable[_Found]) -> None:
        """Add what is in a member."""
        self.found.update(found)
        if member.at is not None:
            self._ranges.append((member.at, member.at + len(member.data)))

    def others(self, candidates: list[Candidate]) -> list[Candidate]:
        """Return those candidates of the raw bytes that no member has told. Compression leaves much
        as it was, and what begins in a member that was not packed is that member's."""
        if not candidates:
            return candidates
        self._ranges.sort()
        begins = [begin for begin, _ in self._ranges]
        ends = list(accumulate((end for _, end in self._ranges), max))
        return [
            one
            for one in candidates
            if (one.pattern, one.secret) not in self.found
            and not ((before := bisect_right(begins, one.start)) and one.start < ends[before - 1])
        ]


class _Names:
    """Names of members, matched many at a time; what is found in one has its member's path."""

    def __init__(self, matcher: Scans) -> None:
        self._matcher = matcher
        self._clear()

    def add(self, name: str, path: str) -> bool:
        """Add one; returns whether it is time to match them."""
        self._paths.append(path)
        self._starts.append(self._size)
        self._names.append(name.encode("utf-8", "surrogateescape"))
        self._size += len(self._names[-1]) + 1
        return self._size >= _NAMES_BYTES

    def match(self) -> tuple[list[Spot], bool]:
        """Return what is in the names that were added since, and whether they are bare."""
        candidates, is_bare = self._matcher.examine(b"\n".join(self._names))
        found = []
        for one in candidates:
            index = bisect_right(self._starts, one.start) - 1
            start = self._starts[index]
            moved = replace(one, start=one.start - start, end=one.end - start)
            found.append(Spot(moved, 1, moved.start + 1, self._paths[index]))
        self._clear()
        return found, is_bare

    def _clear(self) -> None:
        self._names: list[bytes] = []
        self._paths: list[str] = []
        self._starts: list[int] = []
        self._size = 0
