"""The whole loop with the issuer's own service: found in a real push, proved and revoked over HTTP,
mailed; also after the service was away and the repository is gone."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from scanner.bootstrap import Services
from scanner.db.audit import verify
from scanner.db.engine import reader
from scanner.db.schema import audit_events, incidents, outbox, scans, sealed_candidates
from scanner.db.upgrade import upgrade_database
from scanner.embedded.git_server import GitServer
from scanner.model import Secret, Validity
from scanner.rounds import seal_all
from scanner.settings import load_settings
from scanner.sources.github_push import Push
from tests.stores.conftest import merged

KINDS = ["rfc", "batch"]


class Loop:
    """Services with an own token service, and one repository."""

    def __init__(self, world: Any, kind: str, repository: Any, **values: Any) -> None:
        self.world = world
        self.repository = repository
        mail = "email" if kind == "rfc" else "owner.mail"
        file = world.write(merged(world.values(kind), {"fields": {"owner_email": mail}}))
        self.services = Services(
            load_settings({"store": file, "store_patterns": "npm-access-token", **values})
        )
        upgrade_database(self.services.engine)

    def leak(self, secret: Secret) -> None:
        head = self.repository.commit({".npmrc": b"_authToken=" + secret.reveal()})
        self.repository.push()
        push = Push("default", head, self.repository.name, "refs/heads/main", "0" * 40, head, False)
        self.services.intake.accept(push, None)

    def hurry(self) -> None:
        """Let what waits for a later time be due now."""
        with self.services.database.begin() as connection:
            for table in (scans, incidents, sealed_candidates, outbox):
                waiting = table.c.state == "pending"
                connection.execute(update(table).where(waiting).values(available_at=1))

    def run(self) -> None:
        """One round of every step; what fails waits for the next."""
        self.hurry()
        for step in ("scanner", "rechecker", "responder", "deliverer"):
            getattr(self.services, step).run_batch()

    def all(self, query: Any) -> list[Any]:
        with reader(self.services.database).connect() as connection:
            return list(connection.execute(query).scalars())

    def sealed(self) -> list[bytes]:
        return [raw for raw in self.all(select(sealed_candidates.c.sealed)) if raw is not None]


@pytest.fixture
def build(
    world: Any, git_server: GitServer, repository: Any, smtp_server: Any, tmp_path: Path
) -> Iterator[Callable[[str], Loop]]:
    built: list[Loop] = []

    def make(kind: str) -> Loop:
        values = {
            "data_dir": tmp_path / "data",
            "github_url": git_server.url,
            "allow_hosts": git_server.address,
            "smtp_url": f"smtp://127.0.0.1:{smtp_server.port}",
        }
        built.append(Loop(world, kind, repository, **values))
        return built[-1]

    yield make
    for loop in built:
        loop.services.inspector.close()
        loop.services.close()


def ended(loop: Loop, secret: Secret, mails: list[Any]) -> None:
    """The token is dead, once; its owner knows; nothing raw is left."""
    assert loop.all(select(incidents.c.phase)) == ["revoked"]
    assert loop.world.service.tokens.find([secret])[0].validity is Validity.REVOKED
    actions = loop.all(select(audit_events.c.action))
    assert actions.count("leak.found") == actions.count("token.revoked") == 1
    assert [recipients for recipients, _ in mails] == [["ada@acme.example"]]
    assert loop.sealed() == []
    seal_all(loop.services)
    with reader(loop.services.database).connect() as connection:
        assert verify(connection).problems == ()
    loop.services.engine.dispose()
    data = loop.services.settings.data_dir
    with closing(sqlite3.connect(data / "patrol.db")) as connection:
        dump = "\n".join(connection.iterdump()).encode()
    mail = b"".join(bytes(message) for _, message in mails)
    assert secret.reveal() not in dump + mail
    assert b"npm_" in dump


@pytest.mark.parametrize("kind", KINDS)
def test_a_leak_ends_at_the_issuers_own_service(
    build: Callable[[str], Loop], new_secret: Callable[[], Secret], smtp_server: Any, kind: str
) -> None:
    loop, secret = build(kind), new_secret()
    loop.world.service.issue(secret, owner_email="ada@acme.example")
    loop.leak(secret)
    loop.run()
    ended(loop, secret, smtp_server.got)
    loop.run()
    assert len(smtp_server.got) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_service_is_away_and_the_repository_is_deleted_meanwhile(
    build: Callable[[str], Loop], new_secret: Callable[[], Secret], smtp_server: Any, kind: str
) -> None:
    loop, secret = build(kind), new_secret()
    service = loop.world.service
    service.issue(secret, owner_email="ada@acme.example")
    service.stop()
    loop.leak(secret)
    loop.run()
    shutil.rmtree(loop.repository.bare)
    loop.run()
    assert loop.all(select(incidents.c.id)) == []
    assert len(loop.sealed()) == 1
    service.start()
    # It takes the look-up, and then it is away again, and forgets, before it does what is asked.
    service.faulty = "/oauth/revoke" if kind == "rfc" else "/v1/tokens"
    service.faults = [lambda call: call.answer(503, None, Retry_After="60")]
    loop.run()
    assert loop.all(select(incidents.c.phase)) == ["revoking"]
    service.forgets = True
    loop.run()
    assert loop.all(select(incidents.c.phase)) == ["revoking"]
    assert len(loop.sealed()) == (1 if kind == "rfc" else 0)
    service.forgets = False
    loop.run()
    ended(loop, secret, smtp_server.got)


def test_a_token_in_a_strange_state_starves_nobody(
    build: Callable[[str], Loop], new_secret: Callable[[], Secret], smtp_server: Any
) -> None:
    """It leaked, then the service was away for a moment: what came behind it gets its answer."""
    loop, odd, secret = build("batch"), new_secret(), new_secret()
    service = loop.world.service
    odd_id = service.issue(odd)
    service.issue(secret, owner_email="ada@acme.example")
    service.change = lambda value: {
        "results": [
            {**item, "status": "weird"} if item.get("id") == odd_id else item
            for item in value["results"]
        ]
    } if "results" in value else value  # fmt: skip
    loop.leak(odd)
    loop.run()
    assert len(loop.sealed()) == 1
    service.stop()
    loop.leak(secret)
    loop.run()
    assert len(loop.sealed()) == 2
    service.start()
    loop.hurry()
    loop.services.rechecker.run_batch()
    assert loop.all(select(incidents.c.phase)) == ["open"]
    assert len(loop.sealed()) == 1  # the odd one waits on, by itself
    loop.run()
    assert [recipients for recipients, _ in smtp_server.got] == [["ada@acme.example"]]
    service.change = lambda value: value
    loop.run()
    loop.run()
    assert loop.all(select(incidents.c.phase)) == ["revoked"] * 2
    assert loop.sealed() == []


def test_an_owner_who_calls_himself_as_his_token_freezes_nothing(
    build: Callable[[str], Loop], new_secret: Callable[[], Secret], smtp_server: Any
) -> None:
    loop, secret = build("batch"), new_secret()
    text = secret.reveal().decode()
    loop.world.service.issue(secret, name=f"x{text}", owner_email=f"{text}@evil.example")
    loop.leak(secret)
    loop.run()
    assert loop.all(select(incidents.c.phase)) == ["revoked"]
    assert "store.frozen" not in loop.all(select(audit_events.c.action))
    assert [recipients for recipients, _ in smtp_server.got] == [["security@acme.example"]]
    kept = repr(loop.all(select(incidents.c.token)))
    assert text not in kept + str(smtp_server.got[0][1])
    assert "xnpm_…" in kept


def test_an_incident_of_the_store_before_is_still_answered(
    build: Callable[[str], Loop], new_secret: Callable[[], Secret]
) -> None:
    services = build("rfc").services
    assert set(services.responder.stores) == {"built-in", "acme"}
    assert services.responder.stores["acme"] is services.store
