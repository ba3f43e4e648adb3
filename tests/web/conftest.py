"""The whole HTTP side on loopback: the real server, the real database, the embedded broker."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from sqlalchemy import func, select

from scanner.bootstrap import Services
from scanner.db.engine import reader
from scanner.db.schema import incidents, scans
from scanner.db.verdicts import Finding, record_findings
from scanner.matcher.mask import mask
from scanner.matcher.position import spots
from scanner.model import LocatedCandidate, ObjectKind, Place
from scanner.patterns.generate import generate
from scanner.settings import load_settings
from scanner.sources.github_push import Push
from scanner.stores.sql import ensure_owner
from scanner.web.app import create_app
from scanner.web.quota import Quota
from scanner.web.serving import server_config
from scanner.worker import CeleryWaker, make_app
from tests.databases import Databases

EVER_MS = 1 << 45  # from 1970 on
FIRST, SECOND = (secrets.token_hex(16) for _ in range(2))


class Site:
    """Patrol's HTTP side, served; `http` speaks to it, `raw` sends bytes as they are."""

    def __init__(
        self, data_dir: Path, databases: Databases, *, lookups: int = 0, **settings: Any
    ) -> None:
        self.hooks = [
            {"id": "acme", "secrets": [FIRST], "repositories": ["acme/*"]},
            {"id": "globex", "secrets": [SECOND], "repositories": ["globex/*"]},
        ]
        values = {
            "data_dir": data_dir, "hooks": json.dumps(self.hooks),
            "database_url": databases.new(data_dir), **settings,
        }  # fmt: skip
        self.services = Services(load_settings(values))
        self.data_dir = data_dir
        # So many in all: a minute would end in the middle of some test.
        quota = Quota(self.services.database, lookups, EVER_MS) if lookups else None
        self.app = create_app(self.services, CeleryWaker(make_app(self.services.settings)), quota)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.http = httpx2.Client(
            base_url=f"http://127.0.0.1:{self.address[1]}", trust_env=False, timeout=30
        )

    def raw(self, data: bytes, patience: float = 30) -> bytes:
        """Send bytes as they are, and return all that comes until the server closes; what came
        so far, when it waits for more."""
        pieces = []
        with socket.create_connection(self.address, timeout=patience) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may refuse before the end
                connection.sendall(data)
            with suppress(TimeoutError):
                while piece := connection.recv(65_536):
                    pieces.append(piece)
        return b"".join(pieces)

    def sign(self, body: bytes, secret: str = FIRST) -> str:
        return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()

    def deliver(
        self, body: bytes, *, secret: str = FIRST, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """Send a signed webhook."""
        given = {"X-Hub-Signature-256": self.sign(body, secret), **(headers or {})}
        return self.http.post("/webhooks/github", content=body, headers=given)

    def get(self, path: str, bearer: str | None = None) -> httpx2.Response:
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        return self.http.get(path, headers=headers)

    def readiness(self, *reasons: str) -> Any:
        """Ask /readyz until it names exactly these reasons; one look serves a second of probes."""
        deadline = time.monotonic() + 30
        while True:
            answer = self.get("/readyz")
            said = answer.json()
            named = [reason["code"] for reason in said["reasons"]]
            assert answer.status_code == (503 if named else 200)
            if named == list(reasons):
                return said
            assert time.monotonic() < deadline, f"not {reasons}, but {said}"
            time.sleep(0.05)

    def accepted(self) -> int:
        with reader(self.services.database).connect() as connection:
            return connection.execute(select(func.count()).select_from(scans)).scalar_one()

    def wakes(self) -> int:
        return len(list((self.data_dir / "broker" / "queue").glob("*.msg")))

    def issue(self, name: str = "ci") -> tuple[str, str]:
        """Issue a token; returns (the raw token, its id)."""
        pattern = next(
            p for p in self.services.matcher_ruleset.patterns if p.id == "azure-devops-pat"
        )
        secret = generate(pattern)
        with self.services.database.begin() as connection:
            ensure_owner(connection, "Contoso", "Ada", "ada@contoso.example", None)
        token_id = self.services.store.issue(
            secret, organisation="Contoso", owner="Ada", pattern=pattern.id, name=name,
            mask=mask(pattern, secret.reveal()), scopes=("vso.code",), days=30, actor="test",
        )  # fmt: skip
        return secret.reveal().decode(), token_id

    def leak(self) -> tuple[str, str]:
        """Record a leaked token, as a scan does; returns (the incident's id, the raw token)."""
        raw, _ = self.issue("leaky")
        body = hashlib.sha256(raw.encode()).hexdigest()
        push = Push("acme", body, "acme/leaky", "refs/heads/main", "0" * 40, "a" * 40, False)
        scan_id, _ = self.services.intake.accept(push, None)
        (spot,) = spots(text := f"[x]\n\nkey={raw}\n".encode(), self.services.matcher.scan(text))
        place = Place("b" * 40, ObjectKind.BLOB, "config", "a" * 40, None, spot.line, spot.column)
        (lookup,) = self.services.store.find([spot.candidate.secret])
        with self.services.database.begin() as connection:
            row = connection.execute(select(scans).where(scans.c.id == scan_id)).mappings().one()
            finding = Finding(LocatedCandidate(spot.candidate, place), lookup, "config")
            record_findings(connection, row, [finding], self.services.settings.fingerprint_ring)
            return connection.execute(select(incidents.c.id)).scalar_one(), raw


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve in a thread; the socket listens before it starts, so nothing is waited for."""
    server = uvicorn.Server(
        server_config(site.app, log_level="warning", timeout_graceful_shutdown=5)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [site.listener]})
    thread.start()
    try:
        yield site
    finally:
        site.http.close()
        server.should_exit = True
        thread.join()
        site.services.engine.dispose()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Site]:
    """One site for a module: its tests count what is new."""
    with serving(Site(tmp_path_factory.mktemp("site"), databases)) as served:
        yield served


@pytest.fixture
def serve(tmp_path: Path, databases: Databases) -> Callable[..., AbstractContextManager[Site]]:
    """Serve a site of one's own, to break it; after the block all requests have ended."""
    return lambda **settings: serving(Site(tmp_path / "site", databases, **settings))


@pytest.fixture(scope="session")
def event() -> Callable[..., bytes]:
    """A push event's body, never twice the same."""

    def build(**fields: Any) -> bytes:
        values = {
            "ref": "refs/heads/main", "before": "0" * 40, "after": secrets.token_hex(20),
            "repository": {"full_name": "acme/app"}, **fields,
        }  # fmt: skip
        return json.dumps(values).encode()

    return build
