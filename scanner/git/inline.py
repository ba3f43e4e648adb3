"""Inspecting packs in this process: for tests and trusted packs only.

The bytes of a stranger's pack are read beside our keys, without limits of memory or time. The
service reads strangers' packs in a child process (`sandbox.py`).
"""

from __future__ import annotations

import mmap
from dataclasses import replace

from scanner.git.inspect import inspect_pack
from scanner.git.pack import Bounds
from scanner.matcher.position import Scans
from scanner.model import Inspection
from scanner.ports import KnownBlobs, Pack


class InlineInspector:
    """Reads and matches where it is called. Satisfies `ports.Inspector`; as safe to share between
    threads as its matcher is."""

    def __init__(self, matcher: Scans, bounds: Bounds | None = None) -> None:
        self._matcher = matcher
        self._bounds = bounds

    def inspect(
        self, pack: Pack, hash_size: int = 20, known: KnownBlobs | None = None
    ) -> Inspection:
        """Return every candidate of the pack with its places. Errors: `MalformedPackError`."""
        if pack.size == 0:
            return Inspection(partial=pack.partial)
        with mmap.mmap(pack.file.fileno(), pack.size, access=mmap.ACCESS_READ) as data:
            inspection = inspect_pack(data, self._matcher, self._bounds, hash_size, known)
        return replace(inspection, partial=(*pack.partial, *inspection.partial))
