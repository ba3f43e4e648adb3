"""Token services over HTTP for the contract: a fake of each kind, and Patrol's own endpoints."""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

import uvicorn

from scanner.bootstrap import Services
from scanner.db.dialect import POSTGRESQL, SQLITE
from scanner.matcher.engine import Matcher
from scanner.model import Secret
from scanner.ports import TokenStore
from scanner.settings import load_settings
from scanner.stores.http import HttpTokenStore, open_http_store
from scanner.stores.memory import MemoryTokenStore
from scanner.web.app import create_app
from tests.servers.token_service import TokenService


class Own(NamedTuple):
    """Patrol's endpoints on one of its databases, and the file of a store that asks them."""

    database: str
    store: str


NOW, MONTH = timedelta(), timedelta(days=30)
MAIL, CONTACT = "ada@acme.example", "security@acme.example"
SCOPES = ("read", "write")
BEARER = token_hex(16)
_HEAD = """
    name = "acme"
    allow_hosts = ["127.0.0.1"]
    auth = {{ kind = "bearer", bearer_file = "bearer" }}
"""
FAKES = {
    "http-rfc": _HEAD + """
    kind = "rfc"
    introspect.url = "{url}/oauth/introspect"
    revoke.url = "{url}/oauth/revoke"
    [fields]
    name = "label"
    owner_email = "email"
    organisation_id = "/https:~1~1acme.example~1org/id"
    organisation = "/https:~1~1acme.example~1org/name"
    organisation_contact = "/https:~1~1acme.example~1org/contact"
    """,
    "http-mapped": _HEAD + """
    kind = "mapped"
    [find]
    url = "{url}/v1/lookup"
    body = {{ tokens = "{{tokens}}" }}
    batch = 100
    items = "results"
    echo = "sha256"
    echo_is = "sha256"
    [revoke]
    url = "{url}/v1/tokens/{{token_id}}/revoke"
    body = {{ by = "{{incident_id}}" }}
    [confirm]
    url = "{url}/v1/tokens/{{token_id}}"
    item = "token"
    missing = [404]
    [states]
    active = ["live"]
    revoked = ["revoked"]
    expired = ["lapsed"]
    owner_disabled = ["suspended"]
    never_issued = ["unknown"]
    [fields]
    state = "status"
    token_id = "id"
    name = "label"
    organisation_id = "org.id"
    organisation = "org.name"
    organisation_contact = "org.contact"
    owner_id = "owner.id"
    owner_name = "owner.name"
    owner_email = "owner.mail"
    scopes = "scopes"
    valid_from = "from"
    valid_to = "to"
    revoked_by = "revoked_by"
    """,
}  # fmt: skip
PATROLS = {
    "patrol-rfc": Own(SQLITE, _HEAD + """
    kind = "rfc"
    introspect.url = "{url}/oauth/introspect"
    revoke.url = "{url}/oauth/revoke"
    fields.organisation_id = "client_id"
    organisation = {{ name = "Acme", contact = "security@acme.example" }}
    """),
    "patrol-mapped": Own(POSTGRESQL, _HEAD + """
    kind = "mapped"
    [find]
    url = "{url}/api/v1/introspect"
    body = {{ tokens = "{{tokens}}" }}
    batch = 500
    items = "answers"
    [revoke]
    url = "{url}/api/v1/tokens/{{token_id}}/revoke"
    body = {{ cause = "{{incident_id}}" }}
    [confirm]
    url = "{url}/api/v1/tokens/{{token_id}}"
    missing = [404]
    [states]
    active = ["active"]
    revoked = ["revoked"]
    expired = ["expired"]
    owner_disabled = ["owner_disabled"]
    never_issued = ["never_issued"]
    [fields]
    state = "validity"
    revoked_by = "revoked_by"
    token_id = "token.token_id"
    name = "token.name"
    organisation_id = "token.organisation_id"
    organisation = "token.organisation"
    organisation_contact = "token.organisation_contact"
    owner_id = "token.owner_id"
    owner_name = "token.owner_name"
    owner_email = "token.owner_email"
    scopes = "token.scopes"
    valid_from = "token.valid_from"
    valid_to = "token.valid_to"
    """),
}  # fmt: skip


class FakeBench:
    """A made-up service, and the store that asks it."""

    untold: frozenset[str] = frozenset()

    def __init__(self, kind: str, folder: Path, matcher: Matcher) -> None:
        self._service = TokenService(MemoryTokenStore(), bearer=BEARER)
        self._service.start()
        self.store = _open(FAKES[kind], folder, self._service.url, BEARER, matcher)

    def issue(
        self, secret: Secret, owner: str = "Ada", begins: timedelta = NOW, ends: timedelta = MONTH
    ) -> str:
        now = datetime.now(UTC)
        return self._service.issue(
            secret,
            organisation_contact=CONTACT,
            owner=owner,
            owner_email=MAIL,
            name="deploy",
            scopes=SCOPES,
            valid_from=now + begins,
            valid_to=now + ends,
        )

    def disable_owner(self, owner: str) -> None:
        self._service.tokens.disable_owner(owner)

    def revoke_by_hand(self, token_id: str) -> bool:
        return self._service.revoke_by_hand(token_id)

    def take_away(self) -> TokenStore:
        self._service.stop()
        return self.store

    def close(self) -> None:
        self.store.close()
        self._service.stop()


class _Silent:
    """Wakes nobody."""

    def wake(self, task: str) -> None:
        pass


class PatrolServer:
    """Patrol's own HTTP side, served in a thread for `store` to ask."""

    def __init__(
        self, kind: str, folder: Path, database: str, peppers: str, matcher: Matcher
    ) -> None:
        self._services = Services(
            load_settings(
                {"data_dir": folder / "data", "database_url": database, "peppers": peppers}
            )
        )
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(create_app(self._services, _Silent()), log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        bearer = self._services.settings.service_bearers[0]
        self.store = _open(PATROLS[kind].store, folder, url, bearer, matcher)
        # Whose token it is, RFC 7662 has a word for; what it is called and his address, not.
        self.untold = frozenset({"name", "owner_email"} if kind == "patrol-rfc" else ())

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def close(self) -> None:
        self.store.close()
        self.stop()
        self._services.close()


def _open(text: str, folder: Path, url: str, bearer: str, matcher: Matcher) -> HttpTokenStore:
    (folder / "bearer").write_text(bearer)
    file = folder / "store.toml"
    file.write_text(text.format(url=url))
    return open_http_store(file, matcher)
