"""Reading what a stranger wrote: each field of the type it should have, or not at all."""

from __future__ import annotations

from typing import Any


class UnusableFileError(ValueError):
    """The file is no rule file that we know; the message says why."""


class Fields:
    """A table of a rule file. Errors: `UnusableFileError` for a value of another type."""

    def __init__(self, table: object) -> None:
        if not isinstance(table, dict):
            raise UnusableFileError("one of its rules is not a table")
        self._table = table

    def value(self, name: str) -> Any:
        """Return what the field holds, None when it is not there."""
        return self._table.get(name)

    def text(self, name: str) -> str:
        """Return a text, "" when it is not there."""
        found = self.value(name)
        return "" if found is None else str(self._of(name, found, str, int, float))

    def number(self, name: str) -> int:
        """Return a whole number, 0 when it is not there."""
        found = self.value(name)
        return 0 if found is None else int(self._of(name, found, int))

    def decimal(self, name: str) -> float:
        """Return a number, 0 when it is not there."""
        found = self.value(name)
        return 0.0 if found is None else float(self._of(name, found, int, float))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, empty when it is not there."""
        found = self.value(name) or []
        return tuple(
            str(self._of(name, one, str, int, float)) for one in self._of(name, found, list)
        )

    def tables(self, name: str) -> list[Fields]:
        """Return a list of tables, or one; empty when it is not there."""
        found = self.value(name) or []
        return [Fields(one) for one in ([found] if isinstance(found, dict) else found)]

    def _of(self, name: str, value: Any, *types: type) -> Any:
        if isinstance(value, bool) or not isinstance(value, types):
            raise UnusableFileError(f"its field {name} is of another type than expected")
        return value
