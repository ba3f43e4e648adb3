"""How the broker is reached: what Celery is told, and what is refused before anybody is trusted."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scanner.broker import Broker, resolve
from scanner.errors import ConfigurationError
from scanner.redis_access import user_of
from scanner.settings import load_settings
from scanner.worker import make_app, queue_lengths
from tests.servers.documented import redis_users
from tests.servers.redis import RedisServer

HUSH = "hush-hush"
Build = Callable[..., Broker]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def make(url: str | None = None, **settings: Any) -> Broker:
        given = {} if url is None else {"broker_url": url}
        return resolve(load_settings({"data_dir": tmp_path, **given, **settings}))

    return make


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "some.pem"
    path.touch()
    return path


def test_without_an_address_the_embedded_one_serves(build: Build) -> None:
    broker = build()
    assert not broker.is_redis
    assert broker.address == "the embedded one"


def test_a_wake_is_nobody_else_s_while_its_task_may_run(build: Build) -> None:
    options = build("redis://host:6379/0", task_seconds=500).options
    assert options["visibility_timeout"] > 500
    assert (options["unacked_restore_interval"], options["unacked_restore_throttle"]) == (1, 1)


def test_the_first_queue_comes_first_and_every_key_has_its_prefix(build: Build) -> None:
    options = build("redis://host:6379/0", redis_prefix="here:").options
    assert options["queue_order_strategy"] == "priority"
    assert options["global_keyprefix"] == "here:"


def test_nothing_waits_for_ever(build: Build) -> None:
    options = build("redis://host:6379/0").options
    for name in ("socket_timeout", "socket_connect_timeout", "health_check_interval"):
        assert 0 < options[name] <= 10


def test_no_password_is_shown(build: Build) -> None:
    broker = build(f"rediss://patrol:{HUSH}@host:6379/0")
    assert broker.address == "rediss://patrol:**@host:6379/0"
    assert HUSH not in repr(broker)
    assert user_of(broker.url) == "patrol"
    assert user_of("redis://host") is None


@pytest.mark.parametrize("url", ["rediss://host", "rediss://host?ssl_cert_reqs=required"])
def test_tls_verifies_whom_it_talks_to(build: Build, url: str) -> None:
    tls = build(url).tls
    assert tls is not None
    assert (tls["ssl_cert_reqs"], tls["ssl_check_hostname"]) == (ssl.CERT_REQUIRED, True)
    assert build("redis://host").tls is None


@pytest.mark.parametrize("reqs", ["none", "CERT_NONE", "optional", "CERT_OPTIONAL", ""])
def test_tls_that_trusts_anybody_is_refused(build: Build, reqs: str) -> None:
    with pytest.raises(ConfigurationError, match="would talk to anybody"):
        build(f"rediss://u:{HUSH}@host/0?ssl_cert_reqs={reqs}")


def test_certificates_come_from_settings_or_from_the_address(build: Build, pem: Path) -> None:
    wanted = {"ssl_ca_certs": str(pem), "ssl_certfile": str(pem), "ssl_keyfile": str(pem)}
    by_setting = build(
        "rediss://host", redis_ca_file=pem, redis_cert_file=pem, redis_key_file=pem
    ).tls
    by_address = build("rediss://host?" + "&".join(f"{k}={v}" for k, v in wanted.items()))
    assert by_setting == by_address.tls
    assert "?" not in by_address.url
    assert wanted.items() <= dict(by_setting or {}).items()


@pytest.mark.parametrize(
    ("url", "settings", "said"),
    [
        ("redis://host", {"redis_ca_file": "some.pem"}, "speaks no TLS"),
        ("rediss://host", {"redis_ca_file": "nothing.pem"}, "names no file"),
        ("rediss://host", {"redis_key_file": "some.pem"}, "PATROL_REDIS_CERT_FILE"),
        ("rediss://host?password=x", {}, "is not known: password"),
        ("nats://host", {}, "nothing here speaks nats://"),
    ],
)
def test_what_cannot_be_meant_is_said(
    build: Build, pem: Path, url: str, settings: dict[str, str], said: str
) -> None:
    given = {name: pem.parent / value for name, value in settings.items()}
    with pytest.raises(ConfigurationError, match=said):
        build(url, **given)


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., dict[str, int]]:
    def run(url: str, **settings: Any) -> dict[str, int]:
        loaded = load_settings({"data_dir": tmp_path, "broker_url": url, **settings})
        return queue_lengths(make_app(loaded), resolve(loaded))[0]

    return run


def test_a_server_of_another_name_or_authority_is_not_trusted(
    ask: Callable[..., dict[str, int]], new_redis: Callable[..., RedisServer]
) -> None:
    server, other = new_redis(tls=True), new_redis(tls=True)
    assert server.certificates is not None
    assert other.certificates is not None
    url = f"rediss://127.0.0.1:{server.port}/0"
    assert set(ask(url, redis_ca_file=server.certificates.authority).values()) == {0}
    with pytest.raises(ConfigurationError, match="does not answer"):
        ask(url, redis_ca_file=other.certificates.authority)
    with pytest.raises(ConfigurationError, match="does not answer"):
        ask(url)  # the system knows no such authority
    with pytest.raises(ConfigurationError, match="does not answer"):
        ask(f"rediss://127.0.0.2:{server.port}/0", redis_ca_file=server.certificates.authority)


def test_the_documented_user_may_touch_nothing_of_others(
    ask: Callable[..., dict[str, int]], new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis(users=redis_users("secret"))
    assert set(ask(server.url("patrol", "secret")).values()) == {0}
    with pytest.raises(ConfigurationError, match="does not answer"):
        ask(server.url("patrol", "secret"), redis_prefix="another:")
    with pytest.raises(ConfigurationError, match="does not answer"):
        ask(server.url("patrol", "wrong"))


def test_a_server_that_is_away_is_one_sentence(
    ask: Callable[..., dict[str, int]], new_redis: Callable[..., RedisServer]
) -> None:
    server = new_redis()
    server.kill()
    with pytest.raises(ConfigurationError, match="start it, or set PATROL_BROKER_URL") as refused:
        ask(server.url(password=HUSH))
    assert HUSH not in str(refused.value)


def test_certificates_may_be_the_other_rediss(build: Build, pem: Path) -> None:
    """A broker on this machine, and a ledger behind TLS: each gets what is its own."""
    settings = {"ledger_url": "rediss://other", "redis_ca_file": pem}
    assert build("redis://host", **settings).tls is None
    with pytest.raises(ConfigurationError, match="speaks no TLS"):
        build("redis://host", redis_ca_file=pem, ledger_url="redis://other")
