"""The built-in store with hands of an operator, on each database."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, update

from scanner.db import audit
from scanner.db.engine import create_database_engine, reader
from scanner.db.scans import PushRow, accept_push
from scanner.db.schema import incidents, scans, sightings, tokens
from scanner.judge import Judge
from scanner.keyring import Key
from scanner.matcher.engine import Matcher
from scanner.model import (
    Candidate,
    Checksum,
    LocatedCandidate,
    ObjectKind,
    Place,
    Secret,
    Validity,
)
from scanner.patterns.generate import generate
from scanner.stores.accounts import Accounts
from scanner.stores.digests import Peppers
from scanner.stores.importer import Importer
from scanner.stores.lifecycle import TokenLifecycle
from scanner.stores.sql import SqlTokenStore

PATTERN = "npm-access-token"
K1, K2, ACME = (Key(name, name.encode() * 20) for name in ("k1", "k2", "acme"))
ACTOR = "test"


class Turning(Sequence[Key]):
    """A ring that may be turned while it is used."""

    def __init__(self, *keys: Key) -> None:
        self.keys = keys

    def __getitem__(self, index: Any) -> Any:
        return self.keys[index]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass
class Desk:
    """The store, and what its operator can do."""

    engine: Engine
    url: str
    ring: Turning
    new_secret: Callable[[], Secret]
    matcher: Matcher
    pattern: str = PATTERN
    peppers: Peppers = field(init=False)

    def __post_init__(self) -> None:
        self.peppers = Peppers(self.ring, (ACME,))
        self.store = SqlTokenStore(self.engine, self.peppers)
        self.tokens = TokenLifecycle(self.engine, self.peppers)
        self.accounts = Accounts(self.engine)
        self.importer = Importer(
            self.engine,
            self.peppers,
            frozenset({PATTERN}),
            lambda text: bool(self.matcher.scan(text)),
            self.matcher.redact,
        )
        self.acme = self.accounts.create_organisation(
            name="Acme", contact="security@acme.example", actor=ACTOR
        )
        self.ada = self.accounts.create_owner(
            organisation="Acme", name="Ada", email="ada@acme.example", actor=ACTOR
        )

    def create(self, secret: Secret | None = None, **values: Any) -> tuple[Secret, dict[str, Any]]:
        value = secret or self.new_secret()
        given = {
            "organisation": "Acme", "owner": "Ada", "name": "ci", "pattern": PATTERN,
            "mask": "npm_…a1B2", "scopes": ["read"], "days": 30, "actor": ACTOR, **values,
        }  # fmt: skip
        return value, self.tokens.create(value, **given)

    def validity(self, secret: Secret) -> Validity:
        (lookup,) = self.store.find([secret])
        return lookup.validity

    def end(self, token_id: str, at: int = 1) -> None:
        """Let a token have ended long ago."""
        with self.engine.begin() as connection:
            values = {"valid_from": 0, "valid_to": at}
            connection.execute(update(tokens).where(tokens.c.id == token_id).values(values))

    def events(self, *actions: str) -> list[dict[str, Any]]:
        with reader(self.engine).connect() as connection:
            events = audit.list_events(connection, limit=10_000)
        return [event for event in events if not actions or event["action"] in actions]

    def rows(self, table: Any) -> list[dict[str, Any]]:
        with reader(self.engine).connect() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]

    def scan(self, connection: Connection) -> dict[str, Any]:
        push = PushRow(
            hook="default", body_digest=secrets.token_hex(32), host="https://github.example",
            repository="acme/app", ref="refs/heads/main", before="0" * 40, after="a" * 40,
            forced=False, delivery=None,
        )  # fmt: skip
        scan_id, _ = accept_push(connection, push)
        return dict(connection.execute(select(scans).where(scans.c.id == scan_id)).mappings().one())

    def judge(self) -> Judge:
        return Judge(
            engine=self.engine, store=self.store, bound=frozenset({PATTERN}),
            keys=(Key("f1", b"f" * 32),), sealer=None, keep_ms=1, redact=str,  # type: ignore[arg-type]
        )  # fmt: skip

    def leak(self, *leaked: Secret, asked: Callable[[], None] = lambda: None) -> str:
        """Find these tokens in a push, as a scan does; `asked` happens between the store's answer
        and the record. Returns the scan's id."""
        return self.find([seen(secret) for secret in leaked], self.judge(), asked)

    def find(
        self,
        found: Sequence[LocatedCandidate],
        judge: Judge,
        asked: Callable[[], None] = lambda: None,
    ) -> str:
        """The same of candidates at their places."""
        judged = judge.judge(found)
        asked()
        with self.engine.begin() as connection:
            scan = self.scan(connection)
            judge.record(connection, scan, judged)
        return str(scan["id"])

    def incidents(self) -> list[dict[str, Any]]:
        return self.rows(incidents)

    def sightings(self) -> list[dict[str, Any]]:
        return self.rows(sightings)


def seen(secret: Secret) -> LocatedCandidate:
    """A candidate at a place of its own."""
    start = random.randrange(1 << 40)
    candidate = Candidate(
        PATTERN, "npm", start, start + len(secret.reveal()), secret, Checksum.VALID, "npm_…a1B2"
    )
    return LocatedCandidate(candidate, Place("b" * 40, ObjectKind.BLOB, "a.env", "c" * 40))


@pytest.fixture
def new_secret() -> Callable[[], Secret]:
    return lambda: generate(PATTERN)


@pytest.fixture
def desk(database_url: str, new_secret: Callable[[], Secret], matcher: Matcher) -> Iterator[Desk]:
    engine = create_database_engine(database_url)
    yield Desk(engine, database_url, Turning(K1), new_secret, matcher)
    engine.dispose()
