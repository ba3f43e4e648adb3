"""A desk to respond at: a real database, a store and a channel in memory, and the world's hands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine, Table, select, update

from notifier.channels.memory import Delivery, MemoryChannel
from notifier.render import Renderer
from scanner.db import leases, policies
from scanner.db.clock import now_ms
from scanner.db.engine import create_database_engine, reader
from scanner.db.leases import Patience
from scanner.db.scans import PushRow, accept_push, repository_id
from scanner.db.schema import audit_events, incidents, outbox
from scanner.db.seals import Sealer
from scanner.db.verdicts import Finding, record_findings
from scanner.keyring import Key
from scanner.model import (
    Candidate,
    Checksum,
    LocatedCandidate,
    ObjectKind,
    Place,
    Secret,
)
from scanner.patterns.generate import generate
from scanner.ports import TokenStore
from scanner.respond.deliver import Deliverer
from scanner.respond.run import Responder
from scanner.stores.memory import MemoryTokenStore

PATIENCE = Patience(lease_ms=60_000, max_attempts=3, max_retries=2)
OPERATOR = "operator@patrol.example"
PATTERN = "azure-devops-pat"
SEALER = Sealer([Key("s1", Fernet.generate_key())])


class Desk:
    """One installation's second half: what was proved is decided, revoked, recorded and told."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store = MemoryTokenStore()
        self.channel = MemoryChannel()
        self._scans = 0

    # What the world does.

    def issue(self, **details: Any) -> tuple[Secret, str]:
        """Issue a token of Acme's Ada; returns (the secret, its id)."""
        secret = generate(PATTERN)
        known = {
            "organisation_contact": "security@acme.example",
            "owner_email": "ada@acme.example",
            "name": "deploy",
            "pattern": PATTERN,
            "mask": f"…{secret.reveal()[-4:].decode()}",
            "scopes": ("vso.code",),
        }
        return secret, self.store.issue(secret, **{**known, **details})

    def leak(self, secret: Secret, path: str = "deploy.yml") -> str:
        """A scan finds the secret and asks the store; returns the incident's id."""
        (lookup,) = self.store.find([secret])
        self._scans += 1
        push = PushRow(
            hook="default",
            body_digest=str(self._scans),
            host="https://github.example",
            repository="acme/app",
            ref="refs/heads/main",
            before="0" * 40,
            after="a" * 40,
            forced=False,
            delivery=None,
        )
        candidate = Candidate(PATTERN, "azure-devops", 0, 84, secret, Checksum.VALID, "…")
        place = Place(f"{self._scans:040}", ObjectKind.BLOB, path, "c" * 40)
        with self.engine.begin() as connection:
            scan_id, _ = accept_push(connection, push)
            scan = {
                "id": scan_id,
                "repository_id": repository_id(connection, push.host, push.repository),
            }
            found = LocatedCandidate(candidate, place)
            keys = [Key("f1", b"fingerprints")]
            record_findings(connection, scan, [Finding(found, lookup, path)], keys)
            token = lookup.token
            assert token is not None
            return connection.execute(
                select(incidents.c.id).where(incidents.c.token_id == token.token_id)
            ).scalar_one()

    def set_policy(self, *, enabled: bool) -> int:
        with self.engine.begin() as connection:
            acme = policies.Organisation(self.store.name, "Acme", "Acme")
            return policies.change(connection, acme, enabled=enabled, actor="admin").version

    def let_time_pass(self, table: Table = incidents) -> None:
        """What was put off is due, and the leases of workers that are gone have ended."""
        with self.engine.begin() as connection:
            pending = update(table).where(table.c.state == leases.PENDING)
            connection.execute(pending.values(available_at=0))
            running = update(table).where(table.c.state == leases.RUNNING)
            connection.execute(running.values(lease_until=1))

    # What Patrol does.

    def respond(self, store: TokenStore | None = None, patience: Patience = PATIENCE) -> bool:
        used = store or self.store
        # As bootstrap has it: a leak that was proved is not given up for a store that is away.
        lasting = replace(patience, max_retries=None)
        return Responder(self.engine, {self.store.name: used}, SEALER, lasting).run_batch()

    def deliverer(self, channel: Any = None, patience: Patience = PATIENCE) -> Deliverer:
        return Deliverer(
            engine=self.engine,
            channel=channel or self.channel,
            renderer=Renderer(),
            operator_email=OPERATOR,
            issuer_name="Contoso",
            message_domain="patrol.example",
            pattern_names={PATTERN: "Azure DevOps personal access token"},
            patience=patience,
        )

    def deliver(self, channel: Any = None) -> bool:
        return self.deliverer(channel).run_batch()

    # What can be seen.

    @property
    def delivered(self) -> list[Delivery]:
        return list(self.channel.delivered)

    def rows(self, table: Table) -> list[dict[str, Any]]:
        with reader(self.engine).connect() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]

    def incident(self) -> dict[str, Any]:
        (row,) = self.rows(incidents)
        return row

    def notices(self) -> list[dict[str, Any]]:
        return self.rows(outbox)

    def actions(self) -> list[str]:
        """The audit trail as what was done, sorted: which came first within a millisecond is not
        this room's business."""
        return sorted(row["action"] for row in self.rows(audit_events))

    def now(self) -> int:
        with reader(self.engine).connect() as connection:
            return now_ms(connection)


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    engine = create_database_engine(database_url)
    yield Desk(engine)
    engine.dispose()


@pytest.fixture
def leaked(desk: Desk) -> str:
    """An incident of one active token that leaked once."""
    secret, _ = desk.issue()
    return desk.leak(secret)


@pytest.fixture
def audited(desk: Desk) -> Callable[[], list[dict[str, Any]]]:
    return lambda: desk.rows(audit_events)
