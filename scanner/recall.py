"""What one scan asks of the blob ledger, and how far it believes the answer.

An entry rests on the word of a child process that read some pack, and a hostile pack may have
broken that child; nothing that read the same pack could tell. So of the files that are known, a
sample is matched all the same, by whoever reads another pack: an entry that is false is found in
the end, and then none is believed any more (docs/architecture.md).
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence

from scanner.ports import BlobLedger

SAMPLE = 32  # of so many known files, one is matched again


class Recall:
    """One scan's questions. `sample`: 1 doubts every answer."""

    def __init__(self, ledger: BlobLedger, ruleset: str, *, sample: int = SAMPLE) -> None:
        self._ledger = ledger
        self._ruleset = ruleset
        self._sample = sample
        self._doubted: set[str] = set()

    def known(self, object_ids: Sequence[str]) -> set[str]:
        """Return which files need not be matched. The asker cannot tell a doubted one from one
        that nobody knows."""
        known = self._ledger.known(self._ruleset, object_ids)
        doubted = {one for one in known if secrets.randbelow(self._sample) == 0}
        self._doubted |= doubted
        return known - doubted

    def contradiction(self, bare: Collection[str]) -> str | None:
        """Return a file that the ledger knew and that is none of the `bare` ones, if any is."""
        return min(self._doubted.difference(bare), default=None)
