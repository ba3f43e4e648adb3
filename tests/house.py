"""A whole Patrol on loopback: `patrol up` in processes of its own, a real git server, real mail."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from sqlalchemy import Connection, Select

from scanner.bootstrap import Services
from scanner.db.engine import reader
from scanner.embedded.git_server import GitServer
from scanner.embedded.mail_catcher import MailStore
from scanner.matcher.mask import mask
from scanner.patterns.generate import generate
from scanner.settings import load_settings
from scanner.stores.sql import ensure_owner
from tests.databases import Databases
from tests.servers.process import free_port

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
ZEROS = "0" * 40
_PATIENCE = 30.0  # seconds until a test gives up waiting; everything takes a second or two


def until(what: str, look: Callable[[], T]) -> T:
    """Return the first true answer of `look`. Other processes write what it reads: it must poll."""
    deadline = time.monotonic() + _PATIENCE
    while not (answer := look()):
        assert time.monotonic() < deadline, f"waited {_PATIENCE:g} s in vain for {what}"
        time.sleep(0.02)
    return answer


class House:
    """One installation: its folder, settings, services (to issue and to look), processes."""

    def __init__(
        self,
        folder: Path,
        server: GitServer,
        databases: Databases,
        make_repository: Callable[..., Any],
        **settings: Any,
    ) -> None:
        self.folder, self.server, self._make_repository = folder, server, make_repository
        self.data = folder / "data"
        values = {
            "data_dir": self.data,
            "database_url": databases.new(self.data),
            "github_url": server.url,
            "allow_hosts": server.address,
            **{name: free_port() for name in ("port", "smtp_port", "mail_port")},
            **settings,
        }
        for name in ("home", "tmp", "clones"):
            (folder / name).mkdir()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "PYTHONPATH": str(ROOT),  # this checkout, whatever is installed
            **{f"PATROL_{name.upper()}": str(value) for name, value in values.items()},
        }
        self.services = Services(load_settings(values))
        self.url = self.services.settings.base_url
        self._running: dict[str, subprocess.Popen[str]] = {}

    # What an operator does.

    def patrol(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "scanner.cli", *arguments],
            env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def start(self, role: str, *arguments: str) -> subprocess.Popen[str]:
        with (self.folder / f"{role}.out").open("a") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "scanner.cli", role, *arguments],
                env=self.env, cwd=ROOT, stdout=out, stderr=out, text=True, start_new_session=True,
            )  # fmt: skip
        self._running[role] = process
        return process

    def is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False

    def stop(self, role: str) -> int:
        process = self._running.pop(role)
        process.send_signal(signal.SIGINT)
        return process.wait(30)

    def kill(self, role: str) -> None:
        """End a process and all its children as kill -9 does."""
        process = self._running.pop(role)
        with suppress(ProcessLookupError):  # it ended by itself, and nothing is left of it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)

    def close(self) -> None:
        for role in tuple(self._running):
            self.kill(role)
        self.services.engine.dispose()

    # What happens outside.

    def issue(
        self, name: str = "", *, organisation: str = "Contoso", email: str = "ada@contoso.example"
    ) -> tuple[str, str]:
        """Issue a token; returns (the raw token, its id)."""
        pattern = next(
            p for p in self.services.matcher_ruleset.patterns if p.id == "azure-devops-pat"
        )
        secret = generate(pattern)
        with self.services.database.begin() as connection:
            self.ensure_owner(connection, organisation, email)
        token_id = self.services.builtin_store.issue(
            secret, organisation=organisation, owner="Ada", pattern=pattern.id,
            name=name or f"t-{secrets.token_hex(3)}", mask=mask(pattern, secret.reveal()),
            scopes=("vso.code",), days=30, actor="test",
        )  # fmt: skip
        return secret.reveal().decode(), token_id

    @staticmethod
    def ensure_owner(
        connection: Connection, organisation: str, email: str = "ada@contoso.example"
    ) -> None:
        """Ada works there from now on."""
        ensure_owner(connection, organisation, "Ada", email, "security@contoso.example")

    def repository(self, name: str) -> Any:
        """A repository on the git server and a clone to commit in."""
        return self._make_repository(self.server, name, self.folder / "clones")

    def push_event(self, name: str, before: str, after: str, **fields: Any) -> bytes:
        event = {
            "ref": "refs/heads/main", "before": before, "after": after, "forced": False,
            "repository": {"full_name": name}, "nonce": secrets.token_hex(8),
        }  # fmt: skip
        return json.dumps({**event, **fields}).encode()

    def sign(self, body: bytes) -> str:
        """GitHub's signature of a delivery."""
        key = self.services.settings.all_hooks[0].secrets[0].get_secret_value().encode()
        return "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()

    def deliver(
        self, body: bytes, *, signature: str | None = "right", **headers: bytes
    ) -> httpx2.Response:
        """Send a webhook to the running service, signed unless told otherwise."""
        if signature == "right":
            signature = self.sign(body)
        given = {} if signature is None else {"X-Hub-Signature-256": signature.encode("latin-1")}
        return httpx2.post(
            f"{self.url}/webhooks/github",
            content=body,
            headers={"Content-Type": b"application/json", **given, **headers},
            trust_env=False,
            timeout=30,
        )

    def status(self, token: str) -> int:
        """What the issuer's own gate answers to a bearer of the token."""
        bearer = {"Authorization": f"Bearer {token}"}
        return httpx2.get(
            f"{self.url}/api/v1/whoami", headers=bearer, trust_env=False, timeout=30
        ).status_code

    # What can be seen afterwards.

    def rows(self, query: Select[Any]) -> list[Any]:
        with reader(self.services.database).connect() as connection:
            return list(connection.execute(query).mappings())

    def mails(self, containing: str = "") -> list[EmailMessage]:
        store = MailStore(self.data / "mail")
        found = [message for mail_id in store.ids() if (message := store.read(mail_id))]
        return [message for message in found if containing in message.as_string()]
