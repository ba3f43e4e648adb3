"""Whose tokens leak: those of Patrol's own store, or of an issuer's service over HTTP."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Protocol

from sqlalchemy import Connection, select

from scanner.bootstrap import Services
from scanner.db import policies
from scanner.db.schema import tokens
from scanner.matcher.mask import mask
from scanner.model import Secret
from scanner.patterns.generate import generate
from scanner.stores.memory import MemoryTokenStore
from scanner.stores.sql import ensure_owner
from tests.servers.token_service import Call, TokenService

REVOKES, TELLS = "Contoso", "Fabrikam"  # what the organisations' policies say
_PATTERN = "azure-devops-pat"
_FILE = """\
kind = "mapped"
name = "acme"
allow_hosts = ["127.0.0.1"]

[find]
url = "{url}/v1/lookup"
body = {{ tokens = "{{tokens}}" }}
batch = 50
items = "results"
echo = "sha256"
echo_is = "sha256"

[fields]
state = "status"
token_id = "id"
name = "label"
organisation_id = "org.id"
organisation = "org.name"
owner_id = "owner.id"
owner_name = "owner.name"
owner_email = "owner.mail"
revoked_by = "revoked_by"

[states]
active = ["live"]
revoked = ["revoked"]
never_issued = ["unknown"]

[revoke]
url = "{url}/v1/tokens/{{token_id}}/revoke"
body = {{ by = "{{incident_id}}" }}

[confirm]
url = "{url}/v1/tokens/{{token_id}}"
item = "token"

[auth]
kind = "bearer"
bearer_file = "bearer"

[limits]
seconds = 2
budget_seconds = 4
confirm_seconds = 1
pause_seconds = 2
"""


class Issuer(Protocol):
    """Issues what will leak, and knows in the end what became of it."""

    organisations: tuple[str, ...]  # whose tokens there are: most of the first one's

    def issue(self, number: int, organisation: str) -> tuple[str, str]:
        """Return a new token and its id."""
        ...

    def ends(self, connection: Connection) -> Mapping[str, tuple[str, str | None]]:
        """By token id: "active" or "revoked", and the incident that revoked it."""
        ...

    def revocations(self) -> Counter[str]:
        """How often each token was revoked at its issuer's, as far as that counts."""
        ...


class OwnStore:
    """Patrol's own store."""

    organisations = (REVOKES, TELLS)

    def __init__(self, services: Services) -> None:
        self._services = services
        with services.database.begin() as connection:
            for name in self.organisations:
                ensure_owner(connection, name, "Ada", f"ada@{name.lower()}.example", None)
            policies.set_auto_revoke(connection, TELLS, enabled=False, actor="chaos")

    def issue(self, number: int, organisation: str) -> tuple[str, str]:
        secret, masked = _new_secret(self._services)
        token_id = self._services.builtin_store.issue(
            secret, organisation=organisation, owner="Ada", name=f"t-{number}", pattern=_PATTERN,
            mask=masked, scopes=("vso.code",), days=30, actor="chaos",
        )  # fmt: skip
        return secret.reveal().decode(), token_id

    def ends(self, connection: Connection) -> Mapping[str, tuple[str, str | None]]:
        return {row.id: (row.state, row.revoked_by) for row in connection.execute(select(tokens))}

    def revocations(self) -> Counter[str]:
        return Counter()  # the trail counts them


class Service:
    """An issuer's own service; its faults are those of `TokenService`."""

    organisations = (REVOKES, TELLS)

    def __init__(self, service: TokenService, services: Services) -> None:
        self._service, self._services = service, services
        with services.database.begin() as connection:
            policies.set_auto_revoke(
                connection, TELLS, enabled=False, actor="chaos", stores=[services.store.name]
            )

    def issue(self, number: int, organisation: str) -> tuple[str, str]:
        secret, masked = _new_secret(self._services)
        token_id = self._service.issue(
            secret, organisation=organisation, owner="Ada", name=f"t-{number}", pattern=_PATTERN,
            owner_email=f"ada@{organisation.lower()}.example", mask=masked,
        )  # fmt: skip
        return secret.reveal().decode(), token_id

    def ends(self, connection: Connection) -> Mapping[str, tuple[str, str | None]]:
        causes = self._service.causes
        return {
            token_id: ("revoked" if token_id in causes else "active", causes.get(token_id))
            for token_id in self._service.token_ids
        }

    def revocations(self) -> Counter[str]:
        return Counter(self._service.revoked)


def new_service() -> TokenService:
    """An issuer's service, not started yet."""
    return TokenService(MemoryTokenStore(), bearer=token_hex(16))


def describe(service: TokenService, folder: Path) -> Path:
    """Write the file that tells Patrol of the service; returns its path."""
    assert service.bearer is not None
    (folder / "bearer").write_text(service.bearer + "\n")
    file = folder / "store.toml"
    file.write_text(_FILE.format(url=service.url))
    return file


def answers_nobody(call: Call) -> None:
    """A fault: what was asked for is done, and its answer gets lost."""
    call.socket.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        call.usual()


def _new_secret(services: Services) -> tuple[Secret, str]:
    pattern = next(p for p in services.matcher_ruleset.patterns if p.id == _PATTERN)
    secret = generate(pattern)
    return secret, mask(pattern, secret.reveal())
