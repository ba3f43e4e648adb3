"""A small disk of its own under a folder: it can be full without harm to anybody else.

A memory file system, which only root can mount. `run.py` runs as root in a mount namespace of its
own, so that nothing stays mounted however it ends.
"""

from __future__ import annotations

import os
import subprocess
from errno import ENOSPC
from pathlib import Path
from typing import Self

_PIECE = 1 << 20


class Disk:
    """`size` bytes under `folder`, which must exist; `user` owns it (None: us)."""

    def __init__(self, folder: Path, size: int, user: int | None = None) -> None:
        self._folder = folder
        self._ballast = folder / "ballast"
        owner = "" if user is None else f",uid={user},gid={user}"
        self._options = f"size={size},mode=0700{owner}"

    def __enter__(self) -> Self:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", self._options, "patrol-chaos", str(self._folder)],
            check=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self._folder)], check=False)

    def fill(self) -> None:
        """Leave no room at all."""
        with self._ballast.open("ab", buffering=0) as file:
            piece = _PIECE
            while piece:
                try:
                    file.write(b"\0" * piece)
                except OSError as error:
                    if error.errno != ENOSPC:
                        raise
                    piece //= 2

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


NAMESPACE = "CHAOS_NAMESPACE"


def is_possible() -> bool:
    """True in a process that `run.py` started in a mount namespace of its own."""
    return NAMESPACE in os.environ
