"""The rows of an import that were not taken: a file of their numbers and reasons, with no token."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from scanner.stores.importing import Rejected

_SHOWN = ("name", "organisation", "owner", "external_id")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class RejectedRows:
    """FILE.rejected: the number of each row, why, and what may be shown of it."""

    def __init__(self, path: Path, redact: Callable[[str], str], *, dry_run: bool) -> None:
        self._path = path.with_name(f"{path.name}.rejected")
        self._redact, self._dry_run = redact, dry_run
        self._file: TextIO | None = None
        self.path: Path | None = None

    def __enter__(self) -> RejectedRows:
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
