"""A scanner over a real git server, and the parts of it that can be told to fail."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import Engine, Table, select, update

from scanner.db import leases
from scanner.db.engine import create_database_engine
from scanner.db.leases import Patience
from scanner.db.ledger import DatabaseLedger
from scanner.db.schema import audit_events, scans, sealed_candidates
from scanner.db.seals import Sealer
from scanner.errors import InspectionError, StoreUnavailableError
from scanner.git.inline import InlineInspector
from scanner.git.smart_http import SmartHttpFetcher
from scanner.judge import Judge
from scanner.keyring import Key
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Ruleset
from scanner.model import FetchPlan, Lookup, Secret, Validity
from scanner.recheck import Rechecker
from scanner.scan.run import Scanner
from scanner.sources.github_push import Push
from scanner.sources.intake import Intake
from scanner.stores.memory import MemoryTokenStore

ZEROS = "0" * 40
OURS = "azure-devops-pat"
DAY_MS = 86_400_000
LONG = 60.0  # seconds that nothing here may take


class AskedStore(MemoryTokenStore):
    """Remembers what it was asked about, fails over look-ups with a token of `poison`, and says of
    those in `says` something else than what is so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Secret] = []
        self.batches: list[int] = []
        self.poison: set[Secret] = set()
        self.says: dict[Secret, Validity] = {}

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        self.asked += secrets
        self.batches.append(len(secrets))
        if not self.poison.isdisjoint(secrets):
            raise StoreUnavailableError("The store memory answered HTTP 500.")
        return [
            replace(lookup, validity=self.says.get(secret, lookup.validity))
            for secret, lookup in zip(secrets, super().find(secrets), strict=True)
        ]


class DyingInspector:
    """Stands for a parsing child that dies of every pack."""

    def inspect(self, *_: object) -> Any:
        raise InspectionError("The process that reads packs died of this one.")


class SurprisingInspector:
    """Stands for a fault of ours, with a token in its text."""

    def __init__(self, token: str) -> None:
        self._token = token

    def inspect(self, *_: object) -> Any:
        raise RuntimeError(f"cannot read {self._token}")


class ShyFetcher(SmartHttpFetcher):
    """Remembers its plans."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.plans: list[FetchPlan] = []

    def fetch(self, plan: FetchPlan) -> Any:
        self.plans.append(plan)
        return super().fetch(plan)


@dataclass
class World:
    engine: Engine
    store: AskedStore
    scanner: Scanner
    rechecker: Rechecker
    intake: Intake
    fetcher: ShyFetcher

    def push(self, name: str, before: str, after: str, **fields: Any) -> str:
        digest = secrets.token_hex(32)
        push = Push("default", digest, name, "refs/heads/main", before, after, forced=False)
        return self.intake.accept(replace(push, **fields), None)[0]

    def rows(self, table: Table) -> list[Mapping[str, Any]]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(table)).mappings())

    def actions(self) -> list[str]:
        return sorted(row["action"] for row in self.rows(audit_events))

    def pass_time(self) -> None:
        """What was put off is due."""
        with self.engine.begin() as connection:
            for table in (scans, sealed_candidates):
                pending = update(table).where(table.c.state == leases.PENDING)
                connection.execute(pending.values(available_at=0))


def build_world(database_url: str, git_url: str, fetcher: Any, ruleset: Ruleset) -> World:
    """Build the services of a migrated database; dispose of its engine at the end."""
    engine = create_database_engine(database_url)
    bound = frozenset({OURS})
    matcher, store = Matcher(ruleset, bound=bound), AskedStore()
    sealer = Sealer([Key("s1", Fernet.generate_key())])
    judge = Judge(
        engine=engine, store=store, bound=bound, keys=[Key("f1", b"k" * 32)], sealer=sealer,
        keep_ms=DAY_MS, redact=matcher.redact,
    )  # fmt: skip
    scanner = Scanner(
        engine=engine, fetcher=fetcher, inspector=InlineInspector(matcher), matcher=matcher,
        judge=judge, sealer=sealer, patience=Patience(60_000, 3, 2),
        ledger=DatabaseLedger(engine, keep_ms=DAY_MS, most_rows=1_000),
    )  # fmt: skip
    rechecker = Rechecker(engine, judge, Patience(60_000, 3, None))
    return World(
        engine, store, scanner, rechecker, Intake(engine, matcher, sealer, git_url), fetcher
    )
