"""An issuer's token service over real HTTP: RFC 7662/7009 and a JSON of its own, with sign-in, TLS,
and faults on demand. Its tokens are kept by the store in memory."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

from scanner.model import Lookup, Secret, TokenRecord, Validity
from scanner.stores.memory import MemoryTokenStore

Fault = Callable[["Call"], None]
_SKEW = 300  # seconds a signature may be old


@dataclass
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Call:
    """What a fault may use: the request, its connection, and the service's own answer."""

    asked: Asked
    service: TokenService
    socket: socket.socket
    is_answered: bool = False

    def answer(self, status: int, value: Any = None, **headers: str) -> None:
        """Send JSON, in one write."""
        body = b"" if value is None else json.dumps(value).encode()
        kind = {} if value is None else {"Content-Type": "application/json"}
        self.raw(status, body, **kind, **{k.replace("_", "-"): v for k, v in headers.items()})

    def raw(self, status: int, body: bytes, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", *(f"{k}: {v}" for k, v in headers.items())]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
        self.service.rest(self)  # who has the answer may ask the next at once
        self.socket.sendall(head.encode() + body)

    def usual(self) -> None:
        """Answer as if nothing were wrong."""
        self.service.respond(self)


@dataclass
class TokenService:
    """Listens at `url` from `start()` to `stop()`; the port stays the same.

    `faults` are used up first, one a request whose target begins with `faulty`. `change` may
    falsify what a look-up says. While `forgets`, revocations are accepted and not done.
    """

    tokens: MemoryTokenStore
    bearer: str | None = None
    client: tuple[str, str] | None = None
    hmac_keys: Mapping[str, bytes] | None = None
    tls: ssl.SSLContext | None = None
    faults: list[Fault] = field(default_factory=list)
    faulty: str = "/"
    change: Callable[[Any], Any] = lambda value: value
    forgets: bool = False
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._secrets: dict[str, Secret] = {}
        self.causes: dict[str, str] = {}  # token id -> who revoked it
        self.revoked: list[str] = []  # token ids, once for each revocation that was asked for
        self._nonces: set[str] = set()
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._port = 0
        self.busiest = 0  # most requests at once
        self.connections = 0
        self._busy = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def stop(self) -> None:
        """Go away, with every connection; twice is as good as once."""
        if self._server is not None:
            self._server.shutdown()
            self._server.end()
            self._server = None

    @property
    def token_ids(self) -> Collection[str]:
        """All that were issued."""
        return self._secrets.keys()

    def issue(self, secret: Secret, **details: Any) -> str:
        token_id = self.tokens.issue(secret, **details)
        self._secrets[token_id] = secret
        return token_id

    def revoke_by_hand(self, token_id: str) -> bool:
        return self.tokens.revoke_by_hand(token_id, "Ada")

    def handle(self, call: Call) -> None:
        """Answer one request, with the next fault if there is one."""
        with self._lock:
            self.asked.append(call.asked)
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
            fault = None
            if self.faults and call.asked.target.startswith(self.faulty):
                fault = self.faults.pop(0)
        try:
            if fault is not None:
                fault(call)
            else:
                self.respond(call)
        finally:
            self.rest(call)

    def rest(self, call: Call) -> None:
        """Count a request as done, once."""
        with self._lock:
            self._busy -= not call.is_answered
            call.is_answered = True

    def respond(self, call: Call) -> None:
        if not self._may(call.asked):
            call.answer(401, {"error": "invalid_client"})
            return
        path = urlsplit(call.asked.target).path
        if path.startswith("/oauth/"):
            self._oauth(call, path)
        else:
            self._own(call, path)

    def _may(self, asked: Asked) -> bool:
        given = asked.headers.get("authorization", "")
        if self.bearer is not None:
            return hmac.compare_digest(given, f"Bearer {self.bearer}")
        if self.client is not None:
            kind, _, pair = given.partition(" ")
            name, _, word = base64.b64decode(pair).decode().partition(":")
            return kind == "Basic" and (unquote_plus(name), unquote_plus(word)) == self.client
        return self.hmac_keys is None or self._is_signed(asked, self.hmac_keys)

    def _is_signed(self, asked: Asked, keys: Mapping[str, bytes]) -> bool:
        """As docs/your-token-service.md tells a service to check."""
        key = keys.get(asked.headers.get("x-patrol-key", ""))
        stamp = asked.headers.get("x-patrol-timestamp", "")
        nonce = asked.headers.get("x-patrol-nonce", "")
        if key is None or not stamp.isdecimal() or abs(time.time() - int(stamp)) > _SKEW:
            return False
        digest = hashlib.sha256(asked.body).hexdigest()
        lines = ["patrol-hmac-v1", stamp, nonce, asked.method, asked.target, digest]
        right = "v1=" + hmac.new(key, "\n".join(lines).encode(), "sha256").hexdigest()
        with self._lock:
            is_new = nonce not in self._nonces
            self._nonces.add(nonce)
        return is_new and hmac.compare_digest(right, asked.headers.get("x-patrol-signature", ""))

    def _oauth(self, call: Call, path: str) -> None:
        form = parse_qs(call.asked.body.decode(), keep_blank_values=True, encoding="latin-1")
        secret = Secret(form["token"][0].encode("latin-1"))
        (lookup,) = self.tokens.find([secret])
        if path == "/oauth/introspect":
            call.answer(200, self.change(self._introspection(lookup)))
        elif path == "/oauth/revoke":
            if lookup.token is not None and not self.forgets:
                self.tokens.revoke(lookup.token.token_id, "oauth")
            call.answer(200)  # also for what was never issued (RFC 7009, 2.2)
        else:
            call.answer(404, {})

    def _introspection(self, lookup: Lookup) -> dict[str, Any]:
        token = lookup.token
        early = token is not None and token.valid_from > datetime.now(UTC)
        if token is None or lookup.validity is not Validity.ACTIVE or early:
            return {"active": False}
        return {
            "active": True,
            "jti": token.token_id,
            "sub": token.owner_id,
            "username": token.owner_name,
            "client_id": "cli",
            "scope": " ".join(token.scopes),
            "nbf": int(token.valid_from.timestamp()),
            "exp": int(token.valid_to.timestamp()) if token.valid_to else None,
            "iss": "https://id.acme.example",
            "label": token.name,
            "email": token.owner_email,
            "https://acme.example/org": {
                "id": token.organisation_id,
                "name": token.organisation,
                "contact": token.organisation_contact,
            },
        }

    def _own(self, call: Call, path: str) -> None:
        steps = [unquote(step) for step in path.split("/")][1:]
        body = json.loads(call.asked.body) if call.asked.body else None
        match call.asked.method, steps:
            case "POST", ["v1", "lookup"]:
                results = [self._item(text) for text in body["tokens"]]
                call.answer(200, self.change({"results": results}))
            case "POST", ["v1", "lookup-one"]:
                item = self._item(body["token"])
                if item["status"] == "unknown":
                    call.answer(404, {"error": "no such token"})
                else:
                    call.answer(200, self.change({"token": item}))
            case "POST", ["v1", "tokens", token_id, "revoke"]:
                self._revoke(call, token_id, body["by"])
            case "GET", ["v1", "tokens", token_id] if token_id in self._secrets:
                item = self._item(self._secrets[token_id].reveal().decode())
                call.answer(200, self.change({"token": item}))
            case _:
                call.answer(404, {"error": "nothing is here"})

    def _revoke(self, call: Call, token_id: str, by: str) -> None:
        if token_id not in self._secrets:
            call.answer(404, {"error": "no such token"})
            return
        with self._lock:
            self.revoked.append(token_id)
            if not self.forgets and self.tokens.revoke(token_id, by):
                self.causes[token_id] = by
        call.answer(200, {"ok": True})

    def _item(self, text: str) -> dict[str, Any]:
        (lookup,) = self.tokens.find([Secret(text.encode())])
        item = {
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "status": _STATUS[lookup.validity],
        }
        return item if lookup.token is None else {**item, **self._shown(lookup.token)}

    def _shown(self, token: TokenRecord) -> dict[str, Any]:
        return {
            "id": token.token_id,
            "label": token.name,
            "org": {
                "id": token.organisation_id,
                "name": token.organisation,
                "contact": token.organisation_contact,
            },
            "owner": {"id": token.owner_id, "name": token.owner_name, "mail": token.owner_email},
            "scopes": list(token.scopes),
            "from": token.valid_from.isoformat() if token.valid_from else None,
            "to": token.valid_to.isoformat() if token.valid_to else None,
            "revoked_by": self.causes.get(token.token_id),
        }


_STATUS = {
    Validity.ACTIVE: "live",
    Validity.REVOKED: "revoked",
    Validity.EXPIRED: "lapsed",
    Validity.OWNER_DISABLED: "suspended",
    Validity.NEVER_ISSUED: "unknown",
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], service: TokenService) -> None:
        self.service = service
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        plain, address = super().get_request()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        taken = plain
        if self.service.tls is not None:
            taken = self.service.tls.wrap_socket(
                plain, server_side=True, do_handshake_on_connect=False
            )
        with self._guard:
            self._open.add(taken)
            self.service.connections += 1
        return taken, address

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or shows no certificate, is no matter."""

    def end(self) -> None:
        with self._guard:
            left = list(self._open)
        for one in left:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 60

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        self.server.service.handle(Call(asked, self.server.service, self.connection))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 (the library's names)

    def log_message(self, *_args: Any) -> None:
        pass


def status(code: int, **headers: str) -> Fault:
    """Answer with this status and nothing else."""
    return lambda call: call.answer(code, {"error": "x"}, **headers)


def hang_up(call: Call) -> None:
    """Close the connection without a word."""
    call.socket.shutdown(socket.SHUT_RDWR)


def raw(body: bytes, kind: str = "application/json", code: int = 200, **headers: str) -> Fault:
    """Answer with these bytes."""
    return lambda call: call.raw(code, body, **{"Content-Type": kind, **headers})


def slow(release: threading.Event) -> Fault:
    """Answer only when released."""

    def fault(call: Call) -> None:
        release.wait(30)
        call.usual()

    return fault


def drip(release: threading.Event) -> Fault:
    """Send an answer's head, then a byte now and then, until released."""

    def fault(call: Call) -> None:
        head = "HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
        call.socket.sendall(head.encode())
        while not release.wait(0.02):
            call.socket.sendall(b" ")

    return fault
