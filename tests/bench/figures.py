"""What a measurement gives, and how it is taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One row of a table."""

    what: str
    value: str
    ratio: str = ""
    asked: str = ""


def seconds(call: Callable[[], object], runs: int) -> float:
    """Return the median time of one call, after one that does not count."""
    call()
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def milliseconds(value: float) -> str:
    return f"{value * 1e3:.2f} ms"
