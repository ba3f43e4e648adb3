"""A leaked token that only sleeps: what docs/your-token-service.md says becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine, select

from scanner.db.engine import create_database_engine
from scanner.db.scans import PushRow, accept_push
from scanner.db.schema import incidents, scans, sightings
from scanner.db.seals import Sealer
from scanner.judge import Judge
from scanner.keyring import Key
from scanner.model import Secret, Validity
from scanner.policy import Action, Policy, decide
from tests.tokens.conftest import PATTERN, seen


class Leaks:
    """Finds tokens in pushes, as a scan does."""

    def __init__(self, engine: Engine, store: Any) -> None:
        self.engine = engine
        self.judge = Judge(
            engine=engine, store=store, bound=frozenset({PATTERN}), keys=(Key("f1", b"f" * 32),),
            sealer=Sealer([Key("s1", Fernet.generate_key())]), keep_ms=60_000, redact=str,
        )  # fmt: skip

    def push(self, secret: Secret) -> None:
        judged = self.judge.judge([seen(secret)])
        row = PushRow(
            hook="default", body_digest=token_hex(32), host="https://github.example",
            repository="acme/app", ref="refs/heads/main", before="0" * 40, after="a" * 40,
            forced=False, delivery=None,
        )  # fmt: skip
        with self.engine.begin() as connection:
            scan_id, _ = accept_push(connection, row)
            query = select(scans).where(scans.c.id == scan_id)
            scan = connection.execute(query).mappings().one()
            self.judge.record(connection, scan, judged)

    def opened(self) -> list[str]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(incidents.c.validity)).scalars())

    def places(self) -> list[tuple[str, bool]]:
        """Of each sighting its validity, and whether it has an incident."""
        with self.engine.connect() as connection:
            query = select(sightings.c.validity, sightings.c.incident_id).order_by(
                sightings.c.seen_at
            )
            return [(row[0], row[1] is not None) for row in connection.execute(query)]


@pytest.fixture
def leaks(database_url: str, world: Any) -> Iterator[Callable[[str], Leaks]]:
    engine = create_database_engine(database_url)
    yield lambda kind: Leaks(engine, world.open(kind))
    engine.dispose()


def test_a_disabled_owners_token_sleeps_on_where_the_service_cannot_say_so(
    world: Any, leaks: Callable[[str], Leaks], new_secret: Callable[[], Secret]
) -> None:
    found, secret = leaks("rfc"), new_secret()
    world.service.issue(secret, owner="Grace")
    world.service.tokens.disable_owner("Grace")
    found.push(secret)
    assert (found.opened(), found.places()) == ([], [("inactive", False)])
    world.service.tokens.enable_owner("Grace")
    assert found.opened() == []  # nobody tells us
    found.push(secret)  # only when it is seen once more
    assert found.opened() == ["active"]
    assert found.places() == [("active", True)] * 2


def test_one_that_begins_later_sleeps_on_as_well(
    world: Any, leaks: Callable[[str], Leaks], new_secret: Callable[[], Secret]
) -> None:
    found, secret = leaks("rfc"), new_secret()
    world.service.issue(secret, valid_from=datetime.now(UTC) + timedelta(days=1))
    found.push(secret)
    assert (found.opened(), found.places()) == ([], [("inactive", False)])


@pytest.mark.parametrize("kind", ["batch", "single"])
def test_a_service_that_says_why_has_it_revoked(
    world: Any, leaks: Callable[[str], Leaks], new_secret: Callable[[], Secret], kind: str
) -> None:
    found, secret = leaks(kind), new_secret()
    world.service.issue(secret, owner="Grace")
    world.service.tokens.disable_owner("Grace")
    found.push(secret)
    assert found.opened() == ["owner_disabled"]
    for policy in (Policy(), Policy(auto_revoke=False)):
        assert decide(Validity.OWNER_DISABLED, policy).action is Action.REVOKE
