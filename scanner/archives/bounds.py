"""What opening an archive may cost, and the account of one object's opening."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

TOO_LARGE = "archive-too-large"
TOO_DEEP = "archive-too-deep"
TOO_MANY = "archive-too-many-members"
RATIO = "archive-ratio-too-high"
MEMBER_TOO_LARGE = "archive-member-too-large"
ENCRYPTED = "archive-member-encrypted"
UNKNOWN = "archive-method-unknown"
DAMAGED = "archive-damaged"
NEEDS_MEMORY = "archive-needs-memory"
HEADER_TOO_LARGE = "archive-header-too-large"
OVERLAPPING = "archive-overlapping"

# Set by the bytes of the archive alone: opening it again would give the same again.
REASONS = frozenset(
    (
        *(TOO_LARGE, TOO_DEEP, TOO_MANY, RATIO, MEMBER_TOO_LARGE),
        *(ENCRYPTED, UNKNOWN, DAMAGED, NEEDS_MEMORY, HEADER_TOO_LARGE, OVERLAPPING),
    )
)

_SLACK = 1 << 20  # bytes that may go into decompressors, however small the object
_ONE_WINDOW = 128 << 20  # bytes: what `xz -9` and `zstd --ultra -22` need
_MORE_WINDOWS = 16 << 20  # for a stream inside one that is open: `xz -6`, `zstd -19`


@dataclass(frozen=True, slots=True)
class ArchiveBounds:
    """What one object's archives may cost, all nested ones together. Sizes in bytes, unpacked.

    No bound is one of time, so the same bytes always give the same answer.
    """

    total_bytes: int = 1 << 30
    member_bytes: int = 64 << 20  # of one member; the rest of it is left out
    held_bytes: int = 128 << 20  # of members that are open at once, one inside another
    ratio: int = 200  # unpacked to packed, beyond `small_bytes`
    small_bytes: int = 16 << 20  # may come out of anything, however small
    members: int = 100_000  # entries and streams
    depth: int = 8  # archives inside archives
    readings: int = 4  # of the same packed byte: entries may overlap


class Budget:
    """What is left of the bounds while one object is opened. `met` counts the bounds that were."""

    def __init__(self, bounds: ArchiveBounds, size: int) -> None:
        by_ratio = bounds.small_bytes + bounds.ratio * size
        self.bounds = bounds
        self.met: Counter[str] = Counter()
        self.spent = 0
        self._size = size
        self._fed = 0
        self._most = min(bounds.total_bytes, by_ratio)
        self._exhausted = RATIO if by_ratio < bounds.total_bytes else TOO_LARGE
        self._members = bounds.members
        self._held = 0
        self._open = 0

    @property
    def left(self) -> int:
        """Bytes that may still be unpacked."""
        return self._most - self.spent

    @property
    def member_bytes(self) -> int:
        """The most that may be kept of the next member."""
        return max(0, min(self.bounds.member_bytes, self.bounds.held_bytes - self._held))

    @property
    def window_bytes(self) -> int:
        """The most memory that the next decompressor may use."""
        return _MORE_WINDOWS if self._open > 1 else _ONE_WINDOW

    def note(self, reason: str) -> None:
        """Count a bound that was met."""
        self.met[reason] += 1

    def exhaust(self) -> None:
        """Count that no more may be unpacked."""
        self.met[self._exhausted] += 1

    def spend(self, size: int) -> None:
        """Account for bytes that were unpacked."""
        self.spent += size

    def feed(self, size: int) -> bool:
        """Account for bytes that go into a decompressor; False, and counted, when the same bytes
        went in too often, and then no more is unpacked: a stream can take much and give nothing."""
        self._fed += size
        if self._fed > self.bounds.readings * (self._size + self.spent) + _SLACK:
            self.met[OVERLAPPING] += 1
            self._most = self.spent
            return False
        return True

    def unfeed(self, size: int) -> None:
        """Take back what went in and was not used."""
        self._fed -= size

    def enter(self) -> bool:
        """Account for one more entry or stream; False, and counted, when there are too many."""
        if self._members <= 0:
            self.met[TOO_MANY] += 1
            return False
        self._members -= 1
        return True

    def hold(self, size: int) -> None:
        """Account for a member that stays in memory; a negative size lets it go."""
        self._held += size

    def opened(self, count: int) -> None:
        """Account for a decompressor that stays open; -1 closes it."""
        self._open += count
