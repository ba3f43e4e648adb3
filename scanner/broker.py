"""How the broker is reached: Redis with its options, its TLS and its prefix, or the embedded one.

Whatever is set here is about time only. A broker may lose, repeat or invent wakes: the work itself
is in the database.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kombu.transport import get_transport_cls
from kombu.utils.url import maybe_sanitize_url

from scanner.embedded import broker as embedded
from scanner.errors import ConfigurationError
from scanner.settings import Settings

_SETTING = "PATROL_BROKER_URL"
_GRACE_SECONDS = 60  # a wake that is worked on is nobody else's before its task must have ended
_CONNECT_SECONDS = 2
_ANSWER_SECONDS = 5


@dataclass(frozen=True)
class Broker:
    """What Celery is told. `url` may hold a password; `address` may be shown."""

    url: str = field(repr=False)
    address: str
    options: Mapping[str, Any]  # of the transport
    tls: Mapping[str, Any] | None = None

    @property
    def is_redis(self) -> bool:
        """True where there is a server that may be away."""
        return self.url.startswith("redis")


def resolve(settings: Settings) -> Broker:
    """Read the settings. Errors: `ConfigurationError` for a broker that cannot be used, or only
    without knowing whom we talk to."""
    if settings.broker_url is None:
        url, options = embedded.configure(settings.data_dir)
        return Broker(url, "the embedded one", options)
    url = settings.broker_url.get_secret_value()
    scheme = re.split("[+:]", url)[0]
    try:
        get_transport_cls(scheme)
    except (KeyError, ImportError):
        raise ConfigurationError(
            f"{_SETTING}: nothing here speaks {scheme}://; use redis://host:6379/0"
        ) from None
    if scheme not in ("redis", "rediss"):
        return Broker(url, str(maybe_sanitize_url(url)), {})
    if "+" in url.partition("://")[0]:  # a socket of this machine
        return Broker(url, str(maybe_sanitize_url(url)), _redis_options(settings))
    url, _, query = url.partition("?")
    return Broker(
        url,
        str(maybe_sanitize_url(url)),
        _redis_options(settings),
        _tls(settings, scheme, dict(parse_qsl(query, keep_blank_values=True))),
    )


def _redis_options(settings: Settings) -> dict[str, Any]:
    return {
        "global_keyprefix": settings.redis_prefix,
        "queue_order_strategy": "priority",  # the first of a process's queues comes first
        "priority_steps": [0],  # a queue is one list
        # A wake comes back when its worker has not acknowledged it for so long: never while the
        # task may still run. Nobody waits for that: the sweep is faster.
        "visibility_timeout": settings.task_seconds + _GRACE_SECONDS,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_restore_limit": 100,
        # A server that vanished without a word is noticed. No command is tried twice: a lost
        # wake costs less than a wait.
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _ANSWER_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


def _tls(settings: Settings, scheme: str, query: dict[str, str]) -> dict[str, Any] | None:
    files = {
        "ssl_ca_certs": settings.redis_ca_file,
        "ssl_certfile": settings.redis_cert_file,
        "ssl_keyfile": settings.redis_key_file,
    }
    for name in files:
        if name in query:
            files[name] = Path(query.pop(name))
    requires = query.pop("ssl_cert_reqs", "required")
    if requires.lower().removeprefix("cert_") != "required":
        raise ConfigurationError(
            f"{_SETTING}: ssl_cert_reqs={requires} would talk to anybody; leave it out, and name "
            "your authority's certificate with PATROL_REDIS_CA_FILE"
        )
    if query:
        raise ConfigurationError(f"{_SETTING}: what stands after the ? is not known: {min(query)}")
    given = {name: path for name, path in files.items() if path is not None}
    if scheme != "rediss":
        if given:
            raise ConfigurationError(
                f"{_SETTING} is redis://, which speaks no TLS; use rediss:// with the certificates"
            )
        return None
    for name, path in given.items():
        if not path.is_file():
            raise ConfigurationError(f"{_SETTING}: {name} names no file: {path}")
    if "ssl_keyfile" in given and "ssl_certfile" not in given:
        raise ConfigurationError("PATROL_REDIS_KEY_FILE needs PATROL_REDIS_CERT_FILE beside it.")
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,  # the transport's own default is to trust anybody
        "ssl_check_hostname": True,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        **{name: str(path) for name, path in given.items()},
    }


def user_of(url: str) -> str | None:
    """Whom Redis knows us as; None: its default user."""
    return urlsplit(url).username
