"""The table of a run: for people at 80 columns, and for docs/reliability.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.verdict import Verdict

_COLUMNS = ("fault", "times", "leaks", "lost", "twice", "mails", "audit")


@dataclass(frozen=True)
class Window:
    """One fault that was run: its name, how many tokens leaked under it, what the trail said."""

    fault: str
    leaks: int
    audit: int


def rows(
    windows: Sequence[Window], verdict: Verdict, skipped: Mapping[str, str]
) -> list[tuple[str, ...]]:
    """One row a kind of fault, in the order they first came, and their sum."""
    kinds = list(dict.fromkeys(window.fault for window in windows))
    lost, twice, mails = (
        Counter(windows[number].fault for number, _ in found)
        for found in (verdict.lost, verdict.twice, verdict.mails)
    )
    made: list[tuple[str, ...]] = []
    for kind in sorted(kinds):
        of_kind = [window for window in windows if window.fault == kind]
        leaks = sum(window.leaks for window in of_kind)
        broken = sum(window.audit for window in of_kind)
        numbers = (len(of_kind), leaks, lost[kind], twice[kind], mails[kind], broken)
        made.append((kind, *map(str, numbers)))
    for kind, _ in sorted(skipped.items()):
        made.append((kind, "-", "", "", "", "", ""))
    sums = (
        len(windows), sum(window.leaks for window in windows), len(verdict.lost),
        len(verdict.twice), len(verdict.mails), len(verdict.audit),
    )  # fmt: skip
    return [*made, ("all", *map(str, sums))]


def plain(table: Sequence[Sequence[str]]) -> str:
    """For a terminal."""
    lines = [f"{row[0]:<36}" + "".join(f"{cell:>7}" for cell in row[1:]) for row in table]
    head = f"{_COLUMNS[0]:<36}" + "".join(f"{name:>7}" for name in _COLUMNS[1:])
    return "\n".join([head, "-" * len(head), *lines[:-1], "-" * len(head), lines[-1]])


def markdown(table: Sequence[Sequence[str]]) -> str:
    """For docs/reliability.md."""
    rule = "|---|" + "---:|" * (len(_COLUMNS) - 1)
    lines = ["| " + " | ".join(row) + " |" for row in (_COLUMNS, *table)]
    return "\n".join([lines[0], rule, *lines[1:]])
