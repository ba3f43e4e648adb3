"""The blob ledger's copy in Redis, in front of the one in the database.

Redis is believed nothing (threat 11): each value is a MAC over ruleset and object id, under a key
that Redis never sees. What was forged, or moved from another file or ruleset, is a miss; so is
everything while Redis is away or slow, and then the database answers.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from pybreaker import CircuitBreaker, CircuitBreakerError
from redis.exceptions import RedisError, ResponseError
from sqlalchemy import Connection

from scanner.errors import ConfigurationError
from scanner.keyring import Key
from scanner.ports import BlobLedger
from scanner.redis_access import RedisAccess

log = logging.getLogger(__name__)

T = TypeVar("T")

MAC_BYTES = 16
_PURPOSE = b"patrol blob ledger 1"  # no other use of the same ring makes the same key
_CHUNK = 1_000  # commands of one round trip
_LONGEST_SECONDS = 7 * 86_400
_TROUBLE = (RedisError, OSError, ValueError)


class RedisLedger:
    """Satisfies `ports.BlobLedger`. Safe to share between threads and to carry over a fork.

    `behind` holds the truth. `keys` is a ring of which the newest key counts; turning it empties
    the copy. `timeout`: seconds for any answer; after one that did not come, Redis is left alone
    for `rest` seconds. Errors: `ConfigurationError` for an address that cannot be used.
    """

    def __init__(
        self,
        behind: BlobLedger,
        access: RedisAccess,
        keys: Sequence[Key],
        *,
        keep_seconds: float = _LONGEST_SECONDS,
        timeout: float = 0.1,
        rest: float = 10.0,
    ) -> None:
        self._behind = behind
        self._keys = keys
        self._keep = max(1, round(min(keep_seconds, _LONGEST_SECONDS)))
        self._prefix = f"{access.prefix}ledger:"
        self._redis = access.client(timeout)
        # An answer is an answer: one that refuses (no room, no right) is no reason to rest.
        self._breaker = CircuitBreaker(
            fail_max=1, reset_timeout=rest, exclude=[ResponseError], throw_new_error_on_trip=False
        )
        self._trouble = ""

    def known(self, ruleset: str, object_ids: Sequence[str]) -> set[str]:
        """Return those that Redis remembers under our MAC, and of the others the database."""
        ids = list(dict.fromkeys(object_ids))
        if not ids:
            return set()
        values = self._try(lambda: self._redis.mget([self._name(ruleset, one) for one in ids]))
        macs = self._macs(ruleset, ids)
        found = {
            object_id
            for object_id, value in zip(ids, values or (), strict=False)
            if isinstance(value, bytes) and hmac.compare_digest(value, macs[object_id])
        }
        missing = [object_id for object_id in ids if object_id not in found]
        if missing:
            behind = self._behind.known(ruleset, missing)
            if values is not None:
                self._copy(ruleset, behind)
            found |= behind
        return found

    def remember(self, connection: Connection, ruleset: str, object_ids: Iterable[str]) -> None:
        """Nothing is told to Redis before the commit."""
        self._behind.remember(connection, ruleset, object_ids)

    def publish(self, ruleset: str, object_ids: Collection[str]) -> None:
        """Copy to Redis what the database holds now."""
        self._copy(ruleset, object_ids)
        self._behind.publish(ruleset, object_ids)

    def distrust(self, object_id: str) -> None:
        """Forget everything here and behind."""
        self._behind.distrust(object_id)
        try:
            names = list(self._redis.scan_iter(match=f"{_literally(self._prefix)}*", count=_CHUNK))
            for at in range(0, len(names), _CHUNK):
                self._redis.unlink(*names[at : at + _CHUNK])
        except _TROUBLE as error:
            log.error(  # noqa: TRY400 (its traceback says no more)
                "Redis still holds the false ledger (%s): delete its keys %s*",
                type(error).__name__,
                self._prefix,
            )

    def check(self) -> str:
        """Return Redis's address, without a password. Errors: `ConfigurationError`."""
        at = self._redis.connection_pool.connection_kwargs
        address = f"{at.get('host', at.get('path'))}:{at.get('port', '')}".rstrip(":")
        try:
            self._redis.ping()
        except _TROUBLE as error:
            raise ConfigurationError(
                f"{address} does not answer ({type(error).__name__}); start it, or set "
                "PATROL_LEDGER_URL. Until then the database answers, a little slower"
            ) from None
        return address

    def _copy(self, ruleset: str, object_ids: Collection[str]) -> None:
        values = [
            (self._name(ruleset, one), mac) for one, mac in self._macs(ruleset, object_ids).items()
        ]
        for at in range(0, len(values), _CHUNK):
            pipeline = self._redis.pipeline(transaction=False)
            for name, mac in values[at : at + _CHUNK]:
                pipeline.set(name, mac, ex=self._keep)
            if self._try(pipeline.execute) is None:
                return

    def _macs(self, ruleset: str, object_ids: Iterable[str]) -> dict[str, bytes]:
        key = hmac.digest(self._keys[0].value, _PURPOSE, "sha256")
        return {
            object_id: hmac.digest(key, f"{ruleset}:{object_id}".encode(), "sha256")[:MAC_BYTES]
            for object_id in object_ids
        }

    def _name(self, ruleset: str, object_id: str) -> str:
        return f"{self._prefix}{ruleset[:16]}:{object_id}"

    def _try(self, ask: Callable[[], T]) -> T | None:
        """Return Redis's answer, or None: it is away, slow, refuses, or is left alone."""
        try:
            answer = self._breaker.call(ask)
        except CircuitBreakerError:
            return None
        except _TROUBLE as error:
            self._say(type(error).__name__)
            return None
        self._say("")
        return answer

    def _say(self, trouble: str) -> None:
        """One line when it begins, and one when it ends."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            log.warning("the blob ledger does without Redis: %s", trouble)
        else:
            log.info("Redis holds the blob ledger again")


def _literally(text: str) -> str:
    """Text for Redis's MATCH in which nothing stands for something else."""
    return re.sub(r"([*?\[\\])", r"\\\1", text)
