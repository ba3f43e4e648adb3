"""One id from webhook to mail: the scan's. Every log line of its unit of work carries it.

It is bound to the context, so that scans which run at once on one event loop keep theirs apart, and
a thread that is asked by `asyncio.to_thread` or the web framework's pool inherits it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[str | None] = ContextVar("patrol_correlation_id", default=None)


def current_id() -> str | None:
    """The id of the unit of work that runs now; None outside of one."""
    return _current.get()


def correlate(correlation_id: str) -> None:
    """Bind an id that became known in the middle of the work, until the context ends."""
    _current.set(correlation_id)


@contextmanager
def correlated(correlation_id: str | None) -> Iterator[None]:
    """Bind an id, or none, for the block."""
    token = _current.set(correlation_id)
    try:
        yield
    finally:
        _current.reset(token)
