"""Token stores under their contract, each with what the world does to its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import update

from scanner.db.clock import from_datetime
from scanner.db.dialect import POSTGRESQL, SQLITE
from scanner.db.engine import create_database_engine
from scanner.db.schema import owners, tokens
from scanner.keyring import Key
from scanner.matcher.engine import Matcher
from scanner.matcher.mask import mask
from scanner.matcher.pattern import Pattern, Ruleset
from scanner.model import Secret
from scanner.patterns.generate import generate
from scanner.ports import StoreAbilities, TokenStore
from scanner.stores.memory import MemoryTokenStore
from scanner.stores.sql import SqlTokenStore, ensure_owner
from tests.contracts.remote import (
    CONTACT,
    FAKES,
    MAIL,
    MONTH,
    NOW,
    PATROLS,
    SCOPES,
    FakeBench,
    PatrolServer,
)
from tests.databases import Databases
from tests.servers.process import free_port

RICH = MemoryTokenStore().abilities
# What an RFC 7662/7009 service is: no reasons, no causes, and it revokes only by the raw token.
POOR = replace(RICH, tells_reason=False, revokes_by="secret", keeps_cause=False)
NewSecret = Callable[[], Secret]


class Bench(Protocol):
    """A store to be tested, and hands that its port does not have."""

    untold: frozenset[str]  # fields of a record that this kind of store has no word for

    @property
    def store(self) -> TokenStore: ...

    def issue(
        self, secret: Secret, owner: str = "Ada", begins: timedelta = NOW, ends: timedelta = MONTH
    ) -> str:
        """Issue a token that is valid from and until then, reckoned from now."""
        ...

    def disable_owner(self, owner: str) -> None: ...

    def revoke_by_hand(self, token_id: str) -> bool: ...

    def take_away(self) -> TokenStore:
        """Return a store of this kind that does not answer."""
        ...


class SqlBench:
    """The built-in store, in a database of its own."""

    untold: frozenset[str] = frozenset()
    store: TokenStore

    def __init__(self, databases: Databases, folder: Path, pattern: Pattern) -> None:
        self._databases, self._folder = databases, folder
        self._pattern = pattern
        self._owners: set[str] = set()
        self._keys = (Key("k2", b"newer-0123456789"), Key("k1", b"older-0123456789"))
        self._url = databases.new()
        self._engine = create_database_engine(self._url)
        self.store = SqlTokenStore(self._engine, self._keys)
        before_rotation = SqlTokenStore(self._engine, self._keys[::-1])  # knows the next key
        self._issuers = cycle([before_rotation, self.store])  # some tokens are older than a key

    def issue(
        self, secret: Secret, owner: str = "Ada", begins: timedelta = NOW, ends: timedelta = MONTH
    ) -> str:
        if owner not in self._owners:
            with self._engine.begin() as connection:
                ensure_owner(connection, "Acme", owner, MAIL, CONTACT)
            self._owners.add(owner)
        token_id = next(self._issuers).issue(
            secret,
            organisation="Acme",
            owner=owner,
            name="deploy",
            pattern=self._pattern.id,
            mask=mask(self._pattern, secret.reveal()),
            scopes=SCOPES,
            days=MONTH.days,
            actor="operator",
        )
        if (begins, ends) == (NOW, MONTH):
            return token_id
        now = datetime.now(UTC)
        times = {"valid_from": from_datetime(now + begins), "valid_to": from_datetime(now + ends)}
        with self._engine.begin() as connection:
            connection.execute(update(tokens).where(tokens.c.id == token_id).values(times))
        return token_id

    def disable_owner(self, owner: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(update(owners).where(owners.c.name == owner).values(disabled_at=1))

    def revoke_by_hand(self, token_id: str) -> bool:
        return self.store.revoke_by_hand(token_id, "Ada")

    def take_away(self) -> TokenStore:
        if self._databases.kind == SQLITE:
            place = self._folder / "away.db"
            place.mkdir()  # so that no database can be opened there
            url = f"sqlite:///{place}"
        else:
            url = f"postgresql://patrol@127.0.0.1:{free_port()}/patrol"
        return SqlTokenStore(create_database_engine(url), self._keys)

    def close(self) -> None:
        self._engine.dispose()
        self._databases.drop(self._url)


class MemoryBench:
    """The store in memory."""

    untold: frozenset[str] = frozenset()

    def __init__(self, pattern: Pattern, abilities: StoreAbilities = RICH) -> None:
        self._pattern = pattern
        self.store = MemoryTokenStore(abilities=abilities)

    def issue(
        self, secret: Secret, owner: str = "Ada", begins: timedelta = NOW, ends: timedelta = MONTH
    ) -> str:
        now = datetime.now(UTC)
        return self.store.issue(
            secret,
            organisation_contact=CONTACT,
            owner=owner,
            owner_email=MAIL,
            name="deploy",
            pattern=self._pattern.id,
            mask=mask(self._pattern, secret.reveal()),
            scopes=SCOPES,
            valid_from=now + begins,
            valid_to=now + ends,
        )

    def disable_owner(self, owner: str) -> None:
        self.store.disable_owner(owner)

    def revoke_by_hand(self, token_id: str) -> bool:
        return self.store.revoke_by_hand(token_id, "Ada")

    def take_away(self) -> TokenStore:
        self.store.is_available = False
        return self.store


class PatrolBench(SqlBench):
    """The built-in store, asked over HTTP at Patrol's own endpoints."""

    def __init__(
        self, kind: str, databases: Databases, folder: Path, pattern: Pattern, matcher: Matcher
    ) -> None:
        super().__init__(databases, folder, pattern)
        peppers = ",".join(f"{key.id}:{key.value.decode()}" for key in self._keys)
        self._server = PatrolServer(kind, folder, self._url, peppers, matcher)
        self._behind, self.store = self.store, self._server.store
        self.untold = self._server.untold

    def revoke_by_hand(self, token_id: str) -> bool:
        return self._behind.revoke_by_hand(token_id, "Ada")

    def take_away(self) -> TokenStore:
        self._server.stop()
        return self.store

    def close(self) -> None:
        self._server.close()
        super().close()


@pytest.fixture
def new_secret(ruleset: Ruleset) -> NewSecret:
    pattern = next(p for p in ruleset.patterns if p.id == "npm-access-token")
    return lambda: generate(pattern)


@pytest.fixture(params=[SQLITE, POSTGRESQL, "memory", "memory-poor", *FAKES, *PATROLS])
def bench(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    ruleset: Ruleset,
    matcher: Matcher,
    databases_of: Callable[[str], Databases],
) -> Iterator[Bench]:
    pattern = next(p for p in ruleset.patterns if p.id == "npm-access-token")
    if request.param.startswith("memory"):
        yield MemoryBench(pattern, POOR if request.param == "memory-poor" else RICH)
        return
    made: SqlBench | FakeBench
    if request.param in FAKES:
        made = FakeBench(request.param, tmp_path, matcher)
    elif request.param in PATROLS:
        databases = databases_of(PATROLS[request.param].database)
        made = PatrolBench(request.param, databases, tmp_path, pattern, matcher)
    else:
        made = SqlBench(databases_of(request.param), tmp_path, pattern)
    yield made
    made.close()
