"""The ledger's copy in Redis: it may be lost, late, full or hostile, and says nothing false."""

from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Connection

from scanner.cache.redis_ledger import MAC_BYTES, RedisLedger
from scanner.errors import ConfigurationError
from scanner.keyring import Key
from tests.servers.process import free_port
from tests.servers.redis import LEDGER_KEYS, RedisServer, access_to

NewRedis = Callable[..., RedisServer]
RULESET, OTHER = "1" * 64, "2" * 64
A, B = "a" * 40, "b" * 40
KEYS = [Key("k1", b"first" * 8)]


class Truth:
    """Stands for the database: what it holds, and what it was asked."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.asked: list[tuple[str, ...]] = []

    def known(self, _ruleset: str, object_ids: Sequence[str]) -> set[str]:
        self.asked.append(tuple(object_ids))
        return self.held.intersection(object_ids)

    def remember(self, _connection: Connection, _ruleset: str, object_ids: Iterable[str]) -> None:
        self.held.update(object_ids)

    def publish(self, _ruleset: str, _object_ids: Collection[str]) -> None:
        pass

    def distrust(self, _object_id: str) -> None:
        self.held.clear()


@pytest.fixture
def truth() -> Truth:
    return Truth()


@pytest.fixture
def make(truth: Truth) -> Callable[..., RedisLedger]:
    """Answers may take their time where time is not the subject: machines are busy."""
    return lambda url, keys=KEYS, **options: RedisLedger(
        truth, access_to(url), keys, **{"timeout": 5.0, **options}
    )


@pytest.fixture
def ledger(make: Callable[..., RedisLedger], redis_server: RedisServer) -> RedisLedger:
    return make(redis_server.url())


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """What somebody who may write to Redis has."""
    with Redis.from_url(redis_server.url()) as client:
        yield client


def place(redis: Redis, object_id: str = A) -> str:
    (name,) = redis.keys(f"{LEDGER_KEYS}*:{object_id}")
    return name.decode()


def test_a_hit_asks_nobody_else(ledger: RedisLedger, truth: Truth) -> None:
    ledger.publish(RULESET, [A])
    assert ledger.known(RULESET, [A]) == {A}
    assert truth.asked == []
    assert ledger.known(RULESET, [B, A]) == {A}
    assert truth.asked == [(B,)]


def test_what_only_the_database_knows_is_copied(ledger: RedisLedger, truth: Truth) -> None:
    truth.held = {A}
    for _ in range(3):
        assert ledger.known(RULESET, [A]) == {A}
    assert truth.asked == [(A,)]


def test_an_entry_is_a_mac_that_expires(ledger: RedisLedger, redis: Redis) -> None:
    ledger.publish(RULESET, [A])
    value, ttl = redis.get(place(redis)), redis.ttl(place(redis))
    assert isinstance(value, bytes)
    assert len(value) == MAC_BYTES == 16
    assert 6 * 86_400 < ttl <= 7 * 86_400


def test_it_is_kept_no_longer_than_the_database_does(
    make: Callable[..., RedisLedger], redis_server: RedisServer, redis: Redis
) -> None:
    make(redis_server.url(), keep_seconds=60.0).publish(RULESET, [A])
    assert 0 < redis.ttl(place(redis)) <= 60


# Somebody writes to Redis.


def test_each_bit_counts(ledger: RedisLedger, redis: Redis, truth: Truth) -> None:
    ledger.publish(RULESET, [A])
    right = redis.get(place(redis))
    assert isinstance(right, bytes)
    for bit in range(8 * MAC_BYTES):
        wrong = bytearray(right)
        wrong[bit // 8] ^= 1 << bit % 8
        redis.set(place(redis), bytes(wrong))
        assert ledger.known(RULESET, [A]) == set()
    redis.set(place(redis), right)
    assert ledger.known(RULESET, [A]) == {A}


@pytest.mark.parametrize(
    "forged",
    [b"", b"1", bytes(16), os.urandom(16), b"x" * 15, b"x" * 17, b"x" * 1_000_000],
    ids=["empty", "one", "zeros", "random", "shorter", "longer", "huge"],
)
def test_a_forged_entry_is_a_miss(ledger: RedisLedger, redis: Redis, forged: bytes) -> None:
    ledger.publish(RULESET, [B])
    name = place(redis, B).replace(B, A)
    redis.set(name, forged)
    assert ledger.known(RULESET, [A, B]) == {B}


def test_a_part_of_the_right_mac_is_a_miss(ledger: RedisLedger, redis: Redis) -> None:
    ledger.publish(RULESET, [A])
    right = redis.get(place(redis))
    assert isinstance(right, bytes)
    for wrong in (right[:-1], right + b"\0", right[:1], right.hex().encode()):
        redis.set(place(redis), wrong)
        assert ledger.known(RULESET, [A]) == set()


def test_an_entry_of_another_file_or_ruleset_is_a_miss(ledger: RedisLedger, redis: Redis) -> None:
    near = "1" * 63 + "2"  # the name in Redis holds only the beginning of a ruleset
    ledger.publish(RULESET, [A])
    entry, name = redis.get(place(redis)), place(redis)
    redis.set(name.replace(A, B), entry)
    redis.set(name.replace(RULESET[:16], OTHER[:16]), entry)
    assert ledger.known(RULESET, [B]) == set()
    assert ledger.known(OTHER, [A]) == set()
    assert ledger.known(near, [A]) == set()
    assert ledger.known(RULESET, [A]) == {A}


@pytest.mark.parametrize("ids", [(A, B), (A, "a" * 64)])
def test_two_entries_that_were_swapped_are_misses(
    ledger: RedisLedger, redis: Redis, ids: tuple[str, str]
) -> None:
    ledger.publish(RULESET, ids)
    names = [place(redis, one) for one in ids]
    one, other = map(redis.get, names)
    redis.mset({names[0]: other, names[1]: one})
    assert ledger.known(RULESET, ids) == set()


def test_an_entry_under_another_key_is_a_miss(
    make: Callable[..., RedisLedger], redis_server: RedisServer
) -> None:
    """A ring that is turned empties the copy, though the old key stays in it; one ring's change is
    seen while the process lives."""
    url, ring = redis_server.url(), list(KEYS)
    ledger = make(url, ring)
    ledger.publish(RULESET, [A])
    assert ledger.known(RULESET, [A]) == {A}
    ring.insert(0, Key("k2", b"newer" * 8))
    assert ledger.known(RULESET, [A]) == set()
    ledger.publish(RULESET, [A])
    assert ledger.known(RULESET, [A]) == {A}
    assert make(url).known(RULESET, [A]) == set()


def test_the_macs_key_is_not_the_rings(ledger: RedisLedger, redis: Redis) -> None:
    ledger.publish(RULESET, [A])
    told = f"{RULESET}:{A}".encode()
    plain = hmac.new(KEYS[0].value, told, hashlib.sha256).digest()[:MAC_BYTES]
    assert redis.get(place(redis)) != plain


@pytest.mark.parametrize("kind", ["list", "set", "hash", "stream"])
def test_a_value_of_another_kind_is_a_miss_and_is_replaced(
    ledger: RedisLedger, redis: Redis, kind: str
) -> None:
    ledger.publish(RULESET, [A])
    name = place(redis)
    redis.delete(name)
    make: dict[str, Callable[[], Any]] = {
        "list": lambda: redis.rpush(name, "x"),
        "set": lambda: redis.sadd(name, "x"),
        "hash": lambda: redis.hset(name, "x", "y"),
        "stream": lambda: redis.xadd(name, {"x": "y"}),
    }
    make[kind]()
    assert ledger.known(RULESET, [A]) == set()
    ledger.publish(RULESET, [A])
    assert ledger.known(RULESET, [A]) == {A}


def test_nothing_of_ours_is_left_when_it_was_false(
    ledger: RedisLedger, redis: Redis, truth: Truth
) -> None:
    ledger.publish(RULESET, [f"{number:040x}" for number in range(2_500)])
    ledger.publish(OTHER, [A])
    redis.set("patrol", "a queue of the broker's")
    ledger.distrust(A)
    assert redis.keys("*") == [b"patrol"]
    assert ledger.known(OTHER, [A]) == set()


# Redis loses, refuses, is away or late.


def test_what_redis_lost_the_database_knows(
    ledger: RedisLedger, redis: Redis, truth: Truth
) -> None:
    truth.held = {A, B}
    ledger.publish(RULESET, [A, B])
    redis.delete(place(redis, A))  # evicted
    assert ledger.known(RULESET, [A, B]) == {A, B}
    assert truth.asked == [(A,)]
    redis.flushall()
    assert ledger.known(RULESET, [A, B]) == {A, B}
    assert ledger.known(RULESET, [A, B]) == {A, B}
    assert truth.asked == [(A,), (A, B)]


def test_a_full_redis_refuses_and_is_still_asked(
    new_redis: NewRedis, make: Callable[..., RedisLedger], truth: Truth, caplog
) -> None:
    server = new_redis()
    ledger = make(server.url())
    ledger.publish(RULESET, [A])
    server.fill()
    truth.held = {A, B}
    for _ in range(3):
        ledger.publish(RULESET, [B])
        assert ledger.known(RULESET, [A, B]) == {A, B}
    assert truth.asked == [(B,)] * 3
    server.make_room()
    ledger.publish(RULESET, [B])
    assert ledger.known(RULESET, [A, B]) == {A, B}
    assert truth.asked == [(B,)] * 3


def test_a_redis_that_hangs_costs_one_time_out_a_while(
    new_redis: NewRedis, make: Callable[..., RedisLedger], truth: Truth, caplog
) -> None:
    server = new_redis()
    ledger = make(server.url(), timeout=0.1, rest=3_600)
    truth.held = {A}
    assert ledger.known(RULESET, [A]) == {A}
    server.pause()
    try:
        began = time.monotonic()
        for _ in range(200):
            assert ledger.known(RULESET, [A]) == {A}
            ledger.publish(RULESET, [A])
        # Two hundred time-outs would be 20 seconds, and twice that for both calls.
        assert time.monotonic() - began < 5
    finally:
        server.resume()
    said = [record.getMessage() for record in caplog.records if "without Redis" in record.message]
    assert said == ["the blob ledger does without Redis: TimeoutError"]


def test_a_redis_that_comes_back_is_asked_again(
    new_redis: NewRedis, make: Callable[..., RedisLedger], truth: Truth
) -> None:
    server = new_redis()
    ledger = make(server.url(), rest=0)
    truth.held = {A}
    ledger.publish(RULESET, [A])
    server.kill()
    for _ in range(3):
        assert ledger.known(RULESET, [A]) == {A}
    assert truth.asked == [(A,)] * 3
    server.start()  # it has lost everything
    assert ledger.known(RULESET, [A]) == {A}
    assert ledger.known(RULESET, [A]) == {A}
    assert truth.asked == [(A,)] * 4


def test_a_redis_that_rests_is_not_asked(
    new_redis: NewRedis, make: Callable[..., RedisLedger], truth: Truth
) -> None:
    server = new_redis()
    ledger = make(server.url(), rest=3_600)
    truth.held = {A}
    server.kill()
    assert ledger.known(RULESET, [A]) == {A}
    server.start()
    ledger.publish(RULESET, [A])
    assert ledger.known(RULESET, [A]) == {A}
    with server.client() as client:
        assert client.info("clients")["connected_clients"] == 1  # this one


def test_nobody_there_when_it_must_be_emptied_is_said(
    make: Callable[..., RedisLedger], truth: Truth, caplog
) -> None:
    truth.held = {A}
    make(f"redis://127.0.0.1:{free_port()}").distrust(A)
    assert truth.held == set()
    assert "delete its keys patrol:ledger:*" in caplog.text


FORKED = """
import os, sys
from scanner.cache.redis_ledger import RedisLedger
from scanner.keyring import Key
from tests.cache.test_redis_ledger import A, KEYS, RULESET, Truth
from tests.servers.redis import access_to

ledger = RedisLedger(Truth(), access_to(sys.argv[1]), KEYS, timeout=5)
ledger.publish(RULESET, [A])
child = os.fork()
right = all(ledger.known(RULESET, [A]) == {A} for _ in range(50))
if child == 0:
    os._exit(0 if right else 1)
_, status = os.waitpid(child, 0)
sys.exit(status or not right)
"""


def test_it_survives_a_fork(redis_server: RedisServer) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FORKED, redis_server.url()],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0


# Addresses.


@pytest.mark.parametrize("client_certificate", [False, True])
def test_it_speaks_tls(
    new_redis: NewRedis, make: Callable[..., RedisLedger], truth: Truth, client_certificate: bool
) -> None:
    server = new_redis(tls=True, client_certificate=client_certificate)
    for url in (server.url(), server.url().replace("=required", "=CERT_REQUIRED")):
        ledger = make(url)
        ledger.publish(RULESET, [A])
        assert ledger.known(RULESET, [A]) == {A}
    assert truth.asked == []
    truth.held = {A}
    stranger = make(f"rediss://127.0.0.1:{server.port}")  # does not trust its certificate
    assert stranger.known(RULESET, [A]) == {A}
    assert truth.asked == [(A,)]


def test_a_user_of_our_keys_alone_is_enough(
    new_redis: NewRedis, make: Callable[..., RedisLedger], truth: Truth, caplog
) -> None:
    rules = "on >s3cr/et@ ~patrol:ledger:* +mget +set +scan +unlink +ping"
    server = new_redis(users={"ledger": rules})
    ledger = make(server.url("ledger", "s3cr/et@", database=0))
    ledger.publish(RULESET, [A])
    assert ledger.known(RULESET, [A]) == {A}
    assert ledger.check() == f"127.0.0.1:{server.port}"
    ledger.distrust(A)
    assert ledger.known(RULESET, [A]) == set()
    assert truth.asked == [(A,)]
    assert caplog.text == ""
    wrong = make(server.url("ledger", "not/it"))
    truth.held = {A}
    assert wrong.known(RULESET, [A]) == {A}
    with pytest.raises(ConfigurationError, match="AuthenticationError") as caught:
        wrong.check()
    assert "not/it" not in str(caught.value) + caplog.text


def test_an_address_that_cannot_be_used_is_refused(make: Callable[..., RedisLedger]) -> None:
    with pytest.raises(ConfigurationError, match="PATROL_LEDGER_URL must be"):
        make("redis://host:port/0")


@pytest.mark.parametrize("prefix", ["acme:", "", "a*[b]?\\-^:"])
def test_its_keys_begin_with_what_is_set(
    redis_server: RedisServer, redis: Redis, truth: Truth, prefix: str
) -> None:
    """And nothing else of a server that is shared is touched, whatever MATCH makes of a prefix."""
    access = access_to(redis_server.url(), redis_prefix=prefix)
    ledger = RedisLedger(truth, access, KEYS, timeout=5)
    others = ["axbc-^:ledger:1", "patrol:ledger:1", "another:1"]
    for name in others:
        redis.set(name, "another's")
    ledger.publish(RULESET, [A])
    (made,) = {name.decode() for name in redis.keys("*")} - {*others}
    assert made.startswith(f"{prefix}ledger:")
    assert ledger.known(RULESET, [A]) == {A}
    ledger.distrust(A)
    assert sorted(name.decode() for name in redis.keys("*")) == sorted(others)


def test_it_uses_the_certificates_that_are_set(new_redis: NewRedis, truth: Truth) -> None:
    server = new_redis(tls=True, client_certificate=True)
    made = server.certificates
    assert made is not None
    access = access_to(
        f"rediss://127.0.0.1:{server.port}/0",
        redis_ca_file=made.authority, redis_cert_file=made.client, redis_key_file=made.client_key,
    )  # fmt: skip
    ledger = RedisLedger(truth, access, KEYS, timeout=5)
    ledger.publish(RULESET, [A])
    assert ledger.known(RULESET, [A]) == {A}
    assert truth.asked == []


def test_a_redis_that_does_not_answer_is_told_to_the_doctor(
    make: Callable[..., RedisLedger],
) -> None:
    with pytest.raises(ConfigurationError, match=r"does not answer \(ConnectionError\); start it"):
        make(f"redis://:s3cret@127.0.0.1:{free_port()}").check()
