"""Everything that is in one object: what matches in its bytes, with lines and columns. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scanner.matcher.position import Scans, Spot, spots


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found in one object.

    `is_bare`: it was read completely and nothing at all matched, not even what a filter then ruled
    out; the blob ledger may remember it. `dropped` candidates were beyond the bound asked for.
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


def examine(data: bytes | memoryview, matcher: Scans, most: int) -> Examined:
    """Match `data`, the content of a file; at most `most` candidates are kept, the first ones.

    A view is copied only when something is in it: a reader may use one buffer for all its files.
    """
    candidates, is_bare = matcher.examine(data)
    if not candidates:
        return _BARE if is_bare else Examined(is_bare=False)
    kept = candidates[:most]
    return Examined(spots(bytes(data), kept), is_bare, len(candidates) - len(kept))
