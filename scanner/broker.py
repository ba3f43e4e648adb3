"""How the broker is reached: Redis with its options (redis_access.py), or the embedded one.

Whatever is set here is about time only. A broker may lose, repeat or invent wakes: the work itself
is in the database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kombu.transport import get_transport_cls
from kombu.utils.url import maybe_sanitize_url

from scanner import redis_access
from scanner.embedded import broker as embedded
from scanner.errors import ConfigurationError
from scanner.settings import Settings

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
            f"{redis_access.BROKER}: nothing here speaks {scheme}://; use redis://host:6379/0"
        ) from None
    if scheme not in ("redis", "rediss"):
        return Broker(url, str(maybe_sanitize_url(url)), {})
    access = redis_access.of_broker(settings)
    if access is None:  # a socket of this machine
        return Broker(url, str(maybe_sanitize_url(url)), _redis_options(settings))
    return Broker(
        access.url, str(maybe_sanitize_url(access.url)), _redis_options(settings), access.tls
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
