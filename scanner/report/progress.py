"""How far a scan is, for whoever waits at a terminal: on standard error, gone in the end."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

_PATIENCE = 0.4  # seconds; what is over by then needs no bar
_EVERY = 0.1
_BAR = 12  # characters
_LEAST = 10  # characters of a path


class Bar:
    """The current file, files, MB/s and findings."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown = 0.0
        self._files = self._bytes = 0
        self._progress = Progress(
            BarColumn(bar_width=_BAR),
            # Strangers chose the path: no markup in it.
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[path]}", markup=False, table_column=Column(no_wrap=True)),
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=None, path="")

    @property
    def is_due(self) -> bool:
        """Whether it is time to show something."""
        now = time.monotonic()
        return now - self._began > _PATIENCE and now - self._shown > _EVERY

    def add(self, files: int, size: int) -> None:
        """Count what was read."""
        self._files += files
        self._bytes += size

    def show(self, path: str, findings: int) -> None:
        """Draw it. `path` as it may be shown."""
        self._shown = time.monotonic()
        rate = self._bytes / (self._shown - self._began) / 1e6
        counts = f"{self._files:,} files  {rate:,.0f} MB/s  {findings:,} found"
        room = max(_LEAST, self._progress.console.width - _BAR - len(counts) - 3)
        # The end of a path tells more than its beginning.
        shown = path if len(path) <= room else f"…{path[1 - room :]}"
        self._progress.update(self._task, description=counts, path=shown)
        self._progress.start()
        self._progress.refresh()

    def hide(self) -> None:
        """Leave the terminal to what is to be written there; `show` brings it back."""
        if self._shown and sys.stdout.isatty():
            self._progress.stop()

    def close(self) -> None:
        """Remove it."""
        self._progress.stop()
