"""Until when a piece of work may go on; whoever must stop sooner cuts it short."""

from __future__ import annotations

import math
from time import monotonic


class Deadline:
    """A moment of this process's clock. Work asks it between steps; another thread, or a signal's
    handler, may cut it short meanwhile."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._at = monotonic() + seconds
        self.was_cut = False  # told to stop, not too slow: nobody is to blame

    @property
    def left(self) -> float:
        """Seconds that are left; never negative."""
        return max(0.0, self._at - monotonic())

    @property
    def is_over(self) -> bool:
        """True from the moment on."""
        return monotonic() >= self._at

    def cut(self, seconds: float) -> None:
        """End at most `seconds` from now."""
        at = monotonic() + seconds
        if at < self._at:
            self._at, self.was_cut = at, True
