"""Kill points: every commit and every call to the outside that a process makes, in order.

Nothing of ours is patched: commits are seen through SQLAlchemy's events, wakes through Celery's
signals, SMTP through Python's own audit events, and the ports through wrappers that the composition
root takes in place of what it would build.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from celery.signals import after_task_publish, before_task_publish
from sqlalchemy import Connection, Engine, event

from scanner.errors import StoreUnavailableError
from scanner.model import FetchPlan, Lookup, Secret
from scanner.ports import Fetcher, Pack, StoreAbilities, TokenStore

# A statement may begin with what it picks its rows by.
_WRITES = re.compile(
    r'\s*(?:WITH\b.*?\)\s*)?(INSERT|UPDATE|DELETE)\s+(?:INTO\s+|FROM\s+)?"?(\w+)',
    re.IGNORECASE | re.DOTALL,
)
_VERBS = (b"EHLO", b"MAIL", b"RCPT", b"DATA", b"QUIT")
_WROTE, _COMMITTED = "patrol_wrote", "patrol_committed"


class Points:
    """Counts the points as they are passed, and does something at one of them: at the one of that
    number, which must have that label, or at the first with that label."""

    def __init__(self, at: int | None, label: str | None, act: Callable[[], None]) -> None:
        self.passed: list[str] = []
        self._at, self._label, self._act = at, label, act

    def __call__(self, label: str) -> None:
        self.passed.append(label)
        is_it = label == self._label
        if self._at is not None:
            assert is_it or self._at != len(self.passed), f"another order: {self.passed}"
            is_it = self._at == len(self.passed)
        if is_it:
            self._act()


def watch_commits(engine: Engine, points: Points) -> None:
    """Pass a point just before, and just after, every commit of something that was written."""

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.info[_WROTE] = []

    @event.listens_for(engine, "before_cursor_execute")
    def _wrote(connection: Connection, _cursor: Any, statement: str, *_: object) -> None:
        found = _WRITES.match(statement)
        if found:
            label = f"{found[1].lower()} {found[2]}"
            connection.info[_WROTE].append(label)
            if _commits_itself(connection):
                points(f"before the statement: {label}")

    @event.listens_for(engine, "commit")
    def _before(connection: Connection) -> None:
        label = ", ".join(dict.fromkeys(connection.info[_WROTE]))
        if label:
            connection.info[_COMMITTED] = label
            if not _commits_itself(connection):
                points(f"before commit: {label}")

    @event.listens_for(engine, "checkin")  # the first thing after a commit
    def _after(_connection: object, record: Any) -> None:
        label = record.info.pop(_COMMITTED, None)
        if label is not None:
            points(f"after commit: {label}")


def _commits_itself(connection: Connection) -> bool:
    """True where each statement is a transaction of its own."""
    return bool(connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT")


def watch_smtp(points: Points) -> None:
    """Pass a point before each thing that is said to a mail server.

    Before QUIT the server has accepted the mail, and nothing of ours knows it yet.
    """

    def heard(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "smtplib.send":
            said = arguments[1]
            data = said.encode() if isinstance(said, str) else bytes(said)
            verb = next((verb for verb in _VERBS if data.upper().startswith(verb)), b"the mail")
            points(f"SMTP: before {verb.decode()}")

    sys.addaudithook(heard)


def watch_wakes(points: Points) -> None:
    """Pass a point before and after each message to the broker."""

    def before(sender: str, **_: object) -> None:
        points(f"wake: before {sender}")

    def after(sender: str, **_: object) -> None:
        points(f"wake: after {sender}")

    before_task_publish.connect(before, weak=False)
    after_task_publish.connect(after, weak=False)


class PointedFetcher:
    """Passes a point around each fetch. Satisfies `ports.Fetcher`."""

    def __init__(self, inner: Fetcher, points: Points) -> None:
        self._inner, self._points = inner, points

    @asynccontextmanager
    async def fetch(self, plan: FetchPlan) -> AsyncIterator[Pack]:
        self._points("git: before the fetch")
        async with self._inner.fetch(plan) as pack:
            self._points("git: the pack is here")
            yield pack
            self._points("git: the pack was read")

    async def list_refs(self, url: str) -> Mapping[str, str]:
        self._points("git: before the refs")
        refs = await self._inner.list_refs(url)
        self._points("git: the refs are here")
        return refs


class PointedStore:
    """Passes a point around each question and each revocation. Satisfies `ports.TokenStore`.

    While `is_away` says so it answers nothing. `abilities` makes it poorer than it is.
    """

    def __init__(
        self,
        inner: TokenStore,
        points: Points,
        is_away: Callable[[], bool],
        abilities: StoreAbilities | None = None,
    ) -> None:
        self.name = inner.name
        self.abilities = abilities or inner.abilities
        self._inner, self._points, self._is_away = inner, points, is_away

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        self._points("store: before it is asked")
        if self._is_away():
            raise StoreUnavailableError(f"The token store {self.name} did not answer.")
        answers = self._inner.find(secrets)
        self._points("store: it has answered")
        return answers

    def revoke(self, token_id: str, incident_id: str, *, secret: Secret | None = None) -> bool:
        self._points("store: before it revokes")
        if self._is_away():
            raise StoreUnavailableError(f"The token store {self.name} did not answer.")
        assert self.abilities.revokes_by == "id" or secret is not None
        ours = self._inner.revoke(token_id, incident_id, secret=secret)
        self._points("store: it has revoked")
        return ours

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # what only the built-in store has
