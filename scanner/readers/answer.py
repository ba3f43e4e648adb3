"""What a reader answers, believed only as far as it can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scanner.git.wire import InspectionLoader
from scanner.matcher.position import Spot
from scanner.model import Inspection, LocatedCandidate, ObjectKind, Place

_MOST_COUNT = 1 << 53
_MOST_REASON = 200  # characters
_MOST_MEMBER = 8_192


def load_answer(loader: InspectionLoader, value: Any, paths: Sequence[str]) -> Inspection:
    """Return the inspection of the files that were asked for, by their paths.

    Errors: `ValueError`, `TypeError` or `KeyError` for anything out of order; their texts hold
    nothing that was read.
    """
    files, size, unpacked = (_count(count) for count in value["counts"])
    if files > len(paths):
        raise ValueError("not that many files")
    found = tuple(_located(loader, row, paths) for row in value["found"])
    partial = tuple(
        f"{_path(index, paths)}: {_text(reason, _MOST_REASON)}"
        for index, reason in value["partial"]
    )
    return Inspection(found, files, files, size, size + unpacked, partial)


def _located(loader: InspectionLoader, row: Any, paths: Sequence[str]) -> LocatedCandidate:
    index, line, column, member, allowed, *rest = row
    spot = Spot(
        loader.candidate(*rest), max(1, _count(line)), max(1, _count(column)),
        _text(member, _MOST_MEMBER), allowed is True,
    )  # fmt: skip
    path = spot.path(_path(index, paths))
    place = Place("", ObjectKind.BLOB, path, line=spot.line, column=spot.column)
    return LocatedCandidate(spot.candidate, place, spot.allowed)


def _path(index: Any, paths: Sequence[str]) -> str:
    number = _count(index)
    if number >= len(paths):
        raise ValueError("not a file that was asked for")
    return paths[number]


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_COUNT:
        raise ValueError("not a count")
    return value


def _text(value: Any, most: int) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise ValueError("not a text of the right form")
    return value
