"""A scanner over a real git server, and the parts of it that can be told to fail."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine, Table, select, update

from scanner.db import leases
from scanner.db.schema import audit_events, scans, sealed_candidates
from scanner.errors import InspectionError
from scanner.git.smart_http import SmartHttpFetcher
from scanner.model import FetchPlan, Lookup, Secret
from scanner.recheck import Rechecker
from scanner.scan import Scanner
from scanner.sources.github_push import Push
from scanner.sources.intake import Intake
from scanner.stores.memory import MemoryTokenStore

ZEROS = "0" * 40
OURS = "azure-devops-pat"
DAY_MS = 86_400_000


class AskedStore(MemoryTokenStore):
    """Remembers what it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Secret] = []

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        self.asked += secrets
        return super().find(secrets)


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
