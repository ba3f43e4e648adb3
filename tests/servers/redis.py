"""A real redis-server of the tests' own, with a password, users, TLS or no room left."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from redis import Redis
from redis.exceptions import RedisError

from scanner.redis_access import RedisAccess, of_ledger
from scanner.settings import load_settings
from tests.servers.certificates import Certificates, make_certificates
from tests.servers.process import Server

_SECONDS = 5.0  # an administrator's command takes at most; a paused server answers none


LEDGER_KEYS = "patrol:ledger:"  # what the blob ledger's begin with, unless another prefix is set


def access_to(url: str, **settings: Any) -> RedisAccess:
    """How our own code reaches a Redis, with the settings that tell it more."""
    access = of_ledger(load_settings({"ledger_url": url, **settings}))
    assert access is not None
    return access


class RedisServer(Server):
    """A Redis that keeps nothing on disk, unless told to: killed, it has lost everything.

    - `password`: of the default user, who needs none without it
    - `users`: users with their ACL rules, as `{"worker": "on >secret ~patrol:* &* +@all"}`; the
      default user is off then
    - `tls`: speaks TLS only, with `certificates` of its own; `client_certificate` asks for one too
    - `options`: more of redis.conf, as `{"appendonly": "yes", "appendfsync": "always"}` for one
      that keeps what it is told
    """

    name = "redis-server"

    def __init__(
        self,
        program: Path,
        *,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
        tls: bool = False,
        client_certificate: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._program, self._password, self._users = program, password, dict(users or {})
        self.certificates: Certificates | None = None
        if tls or client_certificate:
            self.certificates = make_certificates(self.folder)
        self._asks_for_certificate = client_certificate
        self._options = dict(options or {})
        # The tests' own way in, whatever users there are.
        self._socket = self.folder / "socket"
        self._administrator = ("administrator", secrets.token_hex(16))

    def command(self) -> Sequence[str]:
        """The server, with all it is told in a file: a password is in no list of processes."""
        name, password = self._administrator
        told = {
            "bind": "127.0.0.1",
            "port": self.port if self.certificates is None else 0,
            "unixsocket": self._socket,
            "dir": self.folder,
            "save": '""',
            "appendonly": "no",
            **self._options,
        }
        if self._password is not None:
            told["requirepass"] = self._password
        if self.certificates is not None:
            told |= {
                "tls-port": self.port,
                "tls-cert-file": self.certificates.server,
                "tls-key-file": self.certificates.server_key,
                "tls-ca-cert-file": self.certificates.authority,
                "tls-auth-clients": "yes" if self._asks_for_certificate else "no",
            }
        users = {**self._users, name: f"on >{password} ~* &* +@all"}
        if self._users:
            users["default"] = "off"
        lines = [f"{key} {value}" for key, value in told.items()]
        lines += [f"user {user} {rules}" for user, rules in users.items()]
        file = self.folder / "redis.conf"
        file.touch(0o600)
        file.write_text("\n".join(lines) + "\n")
        return [str(self._program), str(file)]

    def is_ready(self) -> bool:
        """True when it answers, and has loaded what it keeps."""
        with suppress(RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def url(self, user: str = "", password: str | None = None, database: int = 0) -> str:
        """The address for Redis clients and Celery; without a user, the default user's."""
        secret = password if user or password is not None else self._password
        sign_in = "" if secret is None else f"{quote(user)}:{quote(secret, safe='')}@"
        address = f"{sign_in}127.0.0.1:{self.port}/{database}"
        if self.certificates is None:
            return f"redis://{address}"
        files = {"ssl_cert_reqs": "required", "ssl_ca_certs": self.certificates.authority}
        if self._asks_for_certificate:
            files |= {
                "ssl_certfile": self.certificates.client,
                "ssl_keyfile": self.certificates.client_key,
            }
        return f"rediss://{address}?{urlencode(files)}"

    def client(self) -> Redis:
        """An administrator's client, to look and to break; close it."""
        name, password = self._administrator
        return Redis(
            unix_socket_path=str(self._socket), username=name, password=password,
            socket_timeout=_SECONDS, decode_responses=True,
        )  # fmt: skip

    def refused(self) -> list[str]:
        """What users were not allowed to do; from 7.2 on clients introduce themselves, and need no
        permission to."""
        with self.client() as client:
            objects = [str(one["object"]) for one in client.acl_log()]
        return [name for name in objects if not name.startswith("client|")]

    def flush(self) -> None:
        """Lose everything it holds."""
        with self.client() as client:
            client.flushall()

    def fill(self) -> None:
        """Have no room left: writing commands are refused, as with `noeviction` on a full one."""
        with self.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)

    def make_room(self) -> None:
        """Take what is written again."""
        with self.client() as client:
            client.config_set("maxmemory", 0)
