"""The tests' own servers: they break as told, come back, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.engine import make_url

from tests.servers.guardian import family
from tests.servers.postgres import PostgresServer
from tests.servers.present import needs
from tests.servers.redis import RedisServer

ROOT = Path(__file__).parents[2]
NewPostgres = Callable[..., PostgresServer]
NewRedis = Callable[..., RedisServer]


def connect(url: str, **options: object) -> psycopg.Connection:
    """Connect as Patrol does: the address names an owner who is no superuser."""
    parsed = make_url(url).set(drivername="postgresql")
    return psycopg.connect(parsed.render_as_string(), **options)


def test_a_database_is_empty_and_its_owner_is_no_superuser(postgres_database: str) -> None:
    with connect(postgres_database) as connection:
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        assert connection.execute(tables).fetchone() == (0,)
        assert connection.execute("SHOW is_superuser").fetchone() == ("off",)
        connection.execute("CREATE TABLE t (n INT)")


def test_a_database_is_copied_and_dropped(postgres_server: PostgresServer) -> None:
    template = postgres_server.create_database()
    with connect(postgres_server.url(template)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
    copied = postgres_server.create_database(template)
    with connect(postgres_server.url(copied)) as connection:
        assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]
        postgres_server.drop_database(copied)  # somebody is connected
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    postgres_server.drop_database(template)
    names = {name for (name,) in postgres_server.execute("SELECT datname FROM pg_database")}
    assert not {template, copied} & names


def test_a_cluster_that_is_killed_keeps_what_was_committed(new_postgres: NewPostgres) -> None:
    server = new_postgres()
    url = server.url(server.create_database())
    assert server.execute("SHOW fsync") == [("on",)]
    writing = connect(url)
    writing.execute("CREATE TABLE t (n INT)")
    writing.commit()
    writing.execute("INSERT INTO t VALUES (1)")
    writing.commit()
    writing.execute("INSERT INTO t VALUES (2)")
    members = family(server.pid)
    assert len(members) > 1
    server.kill()
    assert [pid for pid in members if family(pid)] == []
    with pytest.raises(psycopg.OperationalError):
        writing.commit()
    writing.close()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(url)
    server.start()
    with connect(url) as connection:
        assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]
    server.stop()
    server.start()
    assert "was not properly shut down" in server.log()
    assert server.log().count("was not properly shut down") == 1


def test_a_cluster_that_is_paused_goes_on(new_postgres: NewPostgres) -> None:
    server = new_postgres(durable=False)
    with connect(server.url(server.create_database())) as connection:
        server.pause()
        answers: list[object] = []
        asking = threading.Thread(
            target=lambda: answers.append(connection.execute("SELECT 1").fetchone())
        )
        asking.start()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            connect(server.url("postgres"), connect_timeout=2)
        assert answers == []
        server.resume()
        asking.join()
        assert answers == [(1,)]


def test_a_cluster_takes_settings(new_postgres: NewPostgres) -> None:
    server = new_postgres(durable=False, options={"synchronous_commit": "off"})
    with connect(server.url(server.create_database())) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)


def test_a_shared_redis_is_empty(redis_server: RedisServer) -> None:
    with Redis.from_url(redis_server.url(database=3)) as client:
        assert client.dbsize() == 0
        client.set("left", "over")
        redis_server.flush()
        assert client.dbsize() == 0


def test_a_redis_that_is_killed_has_lost_everything(new_redis: NewRedis) -> None:
    server = new_redis()
    with Redis.from_url(server.url()) as client:
        client.set("a", "b")
        server.kill()
        with pytest.raises(RedisConnectionError):
            client.get("a")
        server.start()
        assert client.get("a") is None


def test_a_redis_with_a_log_keeps_what_it_was_told(new_redis: NewRedis) -> None:
    server = new_redis(options={"appendonly": "yes", "appendfsync": "always"})
    with Redis.from_url(server.url()) as client:
        client.set("a", "b")
        server.kill()
        server.start()
        assert client.get("a") == b"b"


def test_a_redis_that_is_paused_goes_on(new_redis: NewRedis) -> None:
    server = new_redis()
    with Redis.from_url(server.url(), socket_timeout=0.2) as client:
        client.set("a", "b")
        server.pause()
        with pytest.raises(RedisTimeoutError):
            client.get("a")
        server.resume()
        assert client.get("a") == b"b"


def test_a_full_redis_refuses_to_write(new_redis: NewRedis) -> None:
    server = new_redis()
    with Redis.from_url(server.url()) as client:
        client.set("a", "b")
        server.fill()
        with pytest.raises(OutOfMemoryError):
            client.set("a", "c")
        assert client.get("a") == b"b"
        server.make_room()
        client.set("a", "c")


def test_a_redis_knows_its_users(new_redis: NewRedis) -> None:
    server = new_redis(users={"worker": "on >s3cr/et@ ~patrol:* &* +@all"})
    with Redis.from_url(server.url("worker", "s3cr/et@")) as client:
        client.set("patrol:a", "b")
        with pytest.raises(NoPermissionError):
            client.set("other", "b")
    for url in (server.url("worker", "wrong"), server.url()):
        with Redis.from_url(url) as client, pytest.raises(AuthenticationError):
            client.ping()


def test_a_redis_has_a_password(new_redis: NewRedis) -> None:
    server = new_redis(password="p@ss/word:1")
    with Redis.from_url(server.url()) as client:
        client.set("a", "b")
    with Redis.from_url(server.url(password="wrong")) as client, pytest.raises(RedisError):
        client.ping()


@pytest.mark.parametrize("client_certificate", [False, True])
def test_a_redis_speaks_tls_only(new_redis: NewRedis, client_certificate: bool) -> None:
    server = new_redis(tls=True, client_certificate=client_certificate)
    with Redis.from_url(server.url()) as client:
        client.set("a", "b")
    plain = f"redis://127.0.0.1:{server.port}"
    with Redis.from_url(plain) as client, pytest.raises(RedisConnectionError):
        client.ping()
    strange = f"rediss://127.0.0.1:{server.port}?ssl_cert_reqs=required"
    with Redis.from_url(strange) as client, pytest.raises(RedisConnectionError, match="verify"):
        client.ping()


def test_nothing_is_left_of_a_server(new_redis: NewRedis, new_postgres: NewPostgres) -> None:
    for server in (new_redis(), new_postgres(durable=False)):
        members = family(server.pid)
        server.pause()
        server.close()
        assert [pid for pid in members if family(pid)] == []
        assert not server.folder.exists()


def test_servers_die_with_a_test_process_that_is_killed() -> None:
    needs("redis-server")
    needs("postgresql")
    program = """
import sys
from tests.servers.postgres import PostgresServer
from tests.servers.present import needs
from tests.servers.redis import RedisServer
servers = RedisServer(needs("redis-server")), PostgresServer(needs("postgresql"), durable=False)
for server in servers:
    server.start()
    print(server.pid, server.folder, flush=True)
servers[1].pause()
print("ready", flush=True)
sys.stdin.read()
"""
    tests = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with tests:
        assert tests.stdout is not None
        said = [tests.stdout.readline().split() for _ in range(3)]
        assert said.pop() == ["ready"]
        members = [pid for pid, _ in said for pid in family(int(pid))]
        folders = [Path(folder) for _, folder in said]
        assert len(members) > 2
        assert all(folder.exists() for folder in folders)
        tests.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while [pid for pid in members if family(pid)] or any(folder.exists() for folder in folders):
        assert time.monotonic() < deadline, (members, folders)
        time.sleep(0.02)  # nobody tells us of processes that were never ours


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH with what the script itself needs, and no server or apt."""
    for name in ("bash", "dirname", "readlink", "sort", "id", "basename"):
        (tmp_path / name).symlink_to(Path("/usr/bin", name))
    return str(tmp_path)


def run_script(bare_path: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [ROOT / "scripts" / "test_servers.sh", *arguments],
        env={"PATH": bare_path, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_what_is_missing_is_told(bare_path: str) -> None:
    status, said, _ = run_script(bare_path, "where")
    assert status == 0
    assert "redis-server\t\tredis-server\n" in said
    assert "chromium\t\tChromium\n" in said
    status, said, complaint = run_script(bare_path)
    assert (status, said) == (0, "")
    assert "redis-server is missing; tests of it will be skipped" in complaint
    assert "Chromium is missing; tests of it will be skipped. On Debian: apt-get i" in complaint
    assert "tests of it will fail" in run_script(bare_path, CI="true")[2]


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped in"), ("true", "1 error in")])
def test_a_test_whose_server_is_missing_says_so(
    tmp_path: Path, bare_path: str, ci: str, outcome: str
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text("def test_it(redis_server): pass\n")
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-ra", "-p", "tests.servers.fixtures",
            "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path / "tests",
        ],
        env={
            "PATH": bare_path, "CI": ci, "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert "redis-server is missing; on Debian: apt-get install redis-server" in done.stdout
    assert f"\n{outcome}" in done.stdout
