"""Patrol's user of Redis may do what Patrol does there, and nothing else: the rules of the page for
operators, which are also those that compose.yaml's Redis is started with."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scanner.broker import resolve
from scanner.worker import RESPOND, SCAN, CeleryWaker, make_app, queue_lengths
from tests.servers.documented import redis_users
from tests.servers.redis import RedisServer

ROOT = Path(__file__).parents[2]
OBJECT, RULESET = "a" * 40, "1" * 64
# Before it is known who asks, Redis asks for no right.
_SIGNING_IN = {"hello", "auth"}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What the script made for a Redis of Patrol's own."""
    subprocess.run([ROOT / "scripts" / "server_secrets.sh", tmp_path / "made"], check=True)
    return tmp_path / "made"


def rules_of(made: Path) -> tuple[str, str]:
    """The user's rules in redis.conf, and its password."""
    (rules,) = re.findall(r"^user patrol (.+)$", (made / "redis.conf").read_text(), re.M)
    return rules, (made / "redis_password").read_text().strip()


def test_one_line_is_documented_and_granted(made: Path) -> None:
    rules, password = rules_of(made)
    (documented,) = redis_users(password).items()
    assert documented == ("patrol", re.sub("#[0-9a-f]{64}", f">{password}", rules))


def use_the_broker(services: Any) -> None:
    """Wake workers, and be one: also one that gives back what it holds, and one that dies."""
    settings = services.settings
    app = make_app(settings)
    waker = CeleryWaker(app)
    for task in (SCAN, RESPOND):
        waker.wake(task)
    assert sum(queue_lengths(app, resolve(settings))[0].values()) == 2
    app.conf.broker_transport_options |= {"visibility_timeout": -1}  # what is held is lost at once
    with app.connection_for_read() as connection:
        channel, taken = connection.default_channel, []
        with connection.Consumer(
            [app.amqp.queues[SCAN]],
            channel=channel,
            callbacks=[lambda _body, message: taken.append(message)],
        ):

            def take() -> Any:
                while not taken:
                    connection.drain_events(timeout=5)
                return taken.pop()

            take().requeue()
            take()
            channel.qos.restore_visible(num=10)  # for another worker
            take().ack()
        # What a worker's transaction does when it is broken off.
        with channel.conn_or_acquire() as client, pytest.raises(ZeroDivisionError):
            client.transaction(lambda _pipe: 1 // 0, channel.unacked_key)
    assert queue_lengths(app, resolve(settings))[0] == {
        name: int(name == RESPOND) for name in app.amqp.queues
    }


def use_the_ledger(services: Any) -> None:
    ledger = services.redis_ledger
    ledger.publish(RULESET, [OBJECT])
    assert ledger.known(RULESET, [OBJECT]) == {OBJECT}
    ledger.distrust(OBJECT)
    assert ledger.known(RULESET, [OBJECT]) == set()


def test_all_that_is_granted_is_used_and_nothing_is_refused(
    patrol: Any, made: Path, new_redis: Callable[..., RedisServer]
) -> None:
    rules, password = rules_of(made)
    server = new_redis(users={"patrol": rules})
    patrol.set(PATROL_BROKER_URL=server.url("patrol", password, database=1))
    with server.client() as client:
        client.config_resetstat()
    services = patrol.services()
    use_the_broker(services)
    use_the_ledger(services)
    services.engine.dispose()
    told = {one["name"]: one for one in json.loads(patrol("doctor", "--format=json").out)}
    assert (told["broker"]["state"], told["blob ledger"]["state"]) == ("ok", "ok")
    assert server.refused() == []
    with server.client() as client:
        used = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
    administrators = {"config|resetstat", "acl|log", "client|setinfo"}
    assert used - administrators - _SIGNING_IN == set(re.findall(r"\+(\S+)", rules))


def test_it_may_not_touch_what_is_anothers(
    made: Path, new_redis: Callable[..., RedisServer]
) -> None:
    rules, _ = rules_of(made)
    server = new_redis(users={"patrol": rules})
    with server.client() as client:
        for words in ("set another:1 x", "get another:1", "flushall", "keys *", "config get *",
                      "eval return 0", "acl list", "publish x y", "subscribe x"):  # fmt: skip
            refused = client.execute_command("ACL", "DRYRUN", "patrol", *words.split())
            assert refused != "OK", words
        assert client.execute_command("ACL", "DRYRUN", "patrol", "set", "patrol:1", "x") == "OK"
