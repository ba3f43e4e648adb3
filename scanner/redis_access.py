"""How a Redis is reached, whatever it serves: its address, its TLS, and the prefix of our keys.

The broker, wakes, the blob ledger and the doctor all go by this. Nothing here connects.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from scanner.errors import ConfigurationError
from scanner.settings import Settings

BROKER, LEDGER = "PATROL_BROKER_URL", "PATROL_LEDGER_URL"
_SCHEMES = ("redis", "rediss")


@dataclass(frozen=True)
class RedisAccess:
    """One Redis as the settings have it: `setting` holds its address.

    `url` may hold a password, and names no certificates: what TLS needs is in `tls`, None where
    none is spoken. Every key begins with `prefix`.
    """

    setting: str
    url: str = field(repr=False)
    prefix: str
    tls: Mapping[str, Any] | None = None

    def client(self, timeout: float) -> Redis:
        """Make a client that waits for nothing longer than `timeout` seconds, and tries nothing
        twice. It connects with its first question.

        Errors: `ConfigurationError` for an address that no server can have.
        """
        try:
            client = Redis.from_url(
                self.url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
                **(self.tls or {}),
            )
            client.connection_pool.make_connection()  # what it is told counts here and now
        except (ValueError, TypeError, RedisError):
            raise ConfigurationError(
                f"{self.setting} must be redis://host:6379/0, or rediss:// for TLS."
            ) from None
        return client


def of_broker(settings: Settings) -> RedisAccess | None:
    """The Redis that is the broker; None where the broker is another, or a socket of this machine.

    Errors: `ConfigurationError` for what cannot be meant, or trusts anybody.
    """
    return _read(settings, BROKER, settings.broker_url)


def of_ledger(settings: Settings) -> RedisAccess | None:
    """The Redis that keeps the blob ledger's copy: the one that is set for it, or else the broker;
    None where there is none, or where it is set to nothing. Errors: as of `of_broker`."""
    if settings.ledger_url is None:
        return of_broker(settings)
    return _read(settings, LEDGER, settings.ledger_url)


def _read(settings: Settings, setting: str, address: SecretStr | None) -> RedisAccess | None:
    url, _, query = ("" if address is None else address.get_secret_value()).partition("?")
    if url.partition(":")[0] not in _SCHEMES:
        return None
    tls = _tls(settings, setting, url, query)
    return RedisAccess(setting, url, settings.redis_prefix, tls)


def user_of(url: str) -> str | None:
    """Whom Redis knows us as; None: its default user."""
    return urlsplit(url).username


def _tls(settings: Settings, setting: str, url: str, query: str) -> dict[str, Any] | None:
    asked = dict(parse_qsl(query, keep_blank_values=True))
    set_here = {
        "ssl_ca_certs": settings.redis_ca_file,
        "ssl_certfile": settings.redis_cert_file,
        "ssl_keyfile": settings.redis_key_file,
    }
    named = {name: Path(asked.pop(name)) for name in set_here if name in asked}
    requires = asked.pop("ssl_cert_reqs", "required")
    if requires.lower().removeprefix("cert_") != "required":
        raise ConfigurationError(
            f"{setting}: ssl_cert_reqs={requires} would talk to anybody; leave it out, and name "
            "your authority's certificate with PATROL_REDIS_CA_FILE"
        )
    if asked:
        raise ConfigurationError(f"{setting}: what stands after the ? is not known: {min(asked)}")
    given = {name: path for name, path in {**set_here, **named}.items() if path is not None}
    if not url.startswith("rediss:"):
        # Certificates that are set may be the other Redis's.
        if named or (given and not _is_any_encrypted(settings)):
            raise ConfigurationError(
                f"{setting} is redis://, which speaks no TLS; use rediss:// with the certificates"
            )
        return None
    for name, path in given.items():
        if not path.is_file():
            raise ConfigurationError(f"{setting}: {name} names no file: {path}")
    if "ssl_keyfile" in given and "ssl_certfile" not in given:
        raise ConfigurationError("PATROL_REDIS_KEY_FILE needs PATROL_REDIS_CERT_FILE beside it.")
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,  # the broker's own default is to trust anybody
        "ssl_check_hostname": True,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        **{name: str(path) for name, path in given.items()},
    }


def _is_any_encrypted(settings: Settings) -> bool:
    addresses = (settings.broker_url, settings.ledger_url)
    return any(one and one.get_secret_value().startswith("rediss:") for one in addresses)
