"""The database's time, in milliseconds since 1970 UTC.

Leases, due times and the timeline use this clock alone: two machines whose clocks disagree then
still agree on who holds a lease.
"""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic

from sqlalchemy import BigInteger, ColumnElement, Connection, literal_column, text

from scanner.db.dialect import POSTGRESQL, SQLITE

_NOW = {
    SQLITE: "SELECT CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)",
    # Not now(), which stands still from the transaction's first statement on.
    POSTGRESQL: "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}
_NOW_QUERIES = {name: text(query) for name, query in _NOW.items()}
# In brackets a statement asks once, not once a row, and an index may serve the comparison.
_NOW_VALUES = {name: literal_column(f"({query})", BigInteger) for name, query in _NOW.items()}


def now_ms(connection: Connection) -> int:
    """Return the database's present time."""
    return int(connection.execute(_NOW_QUERIES[connection.dialect.name]).scalar_one())


def now_in(connection: Connection) -> ColumnElement[int]:
    """The same, as a value inside another statement: no question of its own."""
    return now_expression(connection.dialect.name)


def now_expression(dialect: str) -> ColumnElement[int]:
    """The same by the dialect's name, for a statement that is made before it is needed."""
    return _NOW_VALUES[dialect]


class ServerClock:
    """The database's time between questions: asked once, then counted on by this machine's
    monotonic clock, which no setting of its own time moves. For what is told of work, not for
    leases: those are compared in the database."""

    def __init__(self, connection: Connection) -> None:
        self._began, self._at = monotonic(), now_ms(connection)

    def now(self) -> int:
        """Milliseconds since 1970 UTC."""
        return self._at + round((monotonic() - self._began) * 1000)


def to_datetime(milliseconds: int | None) -> datetime | None:
    """Return an aware UTC datetime; None stays None."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def to_iso(milliseconds: int | None) -> str | None:
    """Return ISO 8601 in UTC with milliseconds; None stays None."""
    moment = to_datetime(milliseconds)
    if moment is None:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_datetime(moment: datetime | None) -> int | None:
    """Return milliseconds for an aware datetime; None stays None."""
    return None if moment is None else round(moment.timestamp() * 1000)
