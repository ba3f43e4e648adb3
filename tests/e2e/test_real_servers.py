"""`make run-real`: a real PostgreSQL and a real Redis that come and go with the command."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from scanner.commands.demo_guard import refuse_real_services
from scanner.db.engine import create_database_engine
from scanner.db.schema import organisations, repositories
from scanner.db.upgrade import upgrade_database
from scanner.errors import ConfigurationError
from scanner.settings import load_settings
from tests.servers.guardian import family
from tests.servers.present import needs
from tests.servers.process import free_port

ROOT = Path(__file__).parents[2]
PATROL = [sys.executable, "-m", "scanner.cli"]
ASK = "import os; print(open(os.environ['PATROL_DATABASE_URL_FILE']).read()); input()"


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment with ports and folders of its own; the servers' user can reach theirs."""
    for name in ("redis-server", "postgresql"):
        needs(name)
    servers = Path("/tmp" if os.geteuid() == 0 else tmp_path_factory.mktemp("servers"))  # noqa: S108
    servers /= f"patrol-real-{os.getpid()}-{free_port()}"
    names = ("PATROL_PORT", "PATROL_SMTP_PORT", "PATROL_MAIL_PORT", "POSTGRES_PORT", "REDIS_PORT")
    yield {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PATROL_DATA_DIR": str(tmp_path_factory.mktemp("real") / "data"),
        "SERVERS_DIR": str(servers),
        **{name: str(free_port()) for name in names},
    }
    shutil.rmtree(servers, ignore_errors=True)


def begin(place: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "real_servers.py", *words],
        env=place, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def read_until(running: subprocess.Popen[str], beginning: str) -> list[str]:
    assert running.stdout is not None
    lines = []
    for line in running.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith(beginning):
            return lines
    _, said = running.communicate()
    raise AssertionError("\n".join([*lines, said]))


def test_the_whole_loop_runs_on_them_as_the_readme_shows(place: dict[str, str]) -> None:
    running = begin(place, *PATROL, "demo", "--on-these-engines")
    try:
        printed = normal("\n".join(read_until(running, "Ctrl-C")))
        members = family(running.pid)
        running.send_signal(signal.SIGINT)
        rest, said = running.communicate(timeout=120)
    finally:
        running.kill()
    assert (running.returncode, said) == (0, "")
    assert rest.strip().splitlines()[-1] == "Stopping."
    assert len(members) > 10
    assert [pid for pid in members if family(pid)] == []

    readme = (ROOT / "README.md").read_text("utf-8")
    shown = normal(
        readme[readme.index("    PostgreSQL and Redis are up") : readme.index("With con")]
    )
    cut = shown.index("…")
    assert shown[:cut] == printed[:cut]
    assert shown[cut + 1] in printed
    # Nothing fell back to what is embedded.
    data = Path(place["PATROL_DATA_DIR"])
    assert not (data / "patrol.db").exists()
    assert not (data / "broker").exists()

    # What PostgreSQL holds is kept, and an earlier demo is no hindrance.
    again = begin(place, *PATROL, "demo", "--on-these-engines", "--once")
    told, said = again.communicate(timeout=180)
    assert (again.returncode, said) == (0, "")
    assert "Both leaks ended. The audit trail is whole" in told


def normal(text: str) -> list[str]:
    text = re.sub(r"\b\d\d:\d\d:\d\d\.\d{3}\b", "TIME", text)
    text = re.sub(r"\b[0-9a-f]{10}\b|(?<=-)[0-9a-f]{6}\b", "ID", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "HERE", text)
    text = re.sub(r"hold is in \S+\.", "hold is in THERE.", text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_they_are_for_loopback_and_who_has_the_passwords(place: dict[str, str]) -> None:
    running = begin(place, sys.executable, "-c", ASK)
    try:
        assert running.stdout is not None
        running.stdout.readline()
        url = running.stdout.readline().strip()
        with psycopg.connect(url) as connection:
            assert connection.execute("SHOW is_superuser").fetchone() == ("off",)
            assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(re.sub(r":[0-9a-f]+@", "@", url))
        secrets = Path(place["SERVERS_DIR"]) / "secrets"
        assert {file.stat().st_mode & 0o077 for file in (secrets, *secrets.iterdir())} == {0}
        running.communicate("\n", timeout=60)
    finally:
        running.kill()
    assert running.returncode == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_however_it_ends(place: dict[str, str], how: signal.Signals) -> None:
    running = begin(place, sys.executable, "-c", ASK)
    read_until(running, "postgresql://")
    members = family(running.pid)
    assert len(members) > 4
    running.send_signal(how)
    running.communicate(timeout=60)
    for pid in members:
        wait_for_end(pid)


def wait_for_end(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        readable, _, _ = select.select([handle], [], [], 60)
        assert readable, f"process {pid} is left"
    finally:
        os.close(handle)


def test_a_command_that_fails_is_told(place: dict[str, str]) -> None:
    running = begin(place, sys.executable, "-c", "raise SystemExit(7)")
    running.communicate(timeout=60)
    assert running.returncode == 7


def test_a_taken_port_is_one_sentence(place: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(place["REDIS_PORT"]))):
        running = begin(place, "true")
        _, said = running.communicate(timeout=60)
    assert running.returncode == 2
    assert said == (
        f"real servers: port {place['REDIS_PORT']} is taken; set REDIS_PORT to another one.\n"
    )


def test_a_first_start_that_was_cut_short_is_begun_again(place: dict[str, str]) -> None:
    half = Path(place["SERVERS_DIR"]) / "postgresql"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("15\n")
    running = begin(place, "true")
    _, said = running.communicate(timeout=60)
    assert (running.returncode, said) == (0, "")


# What the demo may touch.

SOMEBODYS = {
    "a customer": (organisations, {"id": "1", "name": "A customer", "created_at": 1}),
    "a repository": (
        repositories,
        {"id": "1", "host": "https://github.com", "name": "you/app", "created_at": 1},
    ),
}


@pytest.mark.parametrize(("table", "row"), SOMEBODYS.values(), ids=SOMEBODYS)
def test_a_database_that_is_somebodys_is_left_alone(
    postgres_database: str, tmp_path: Path, table: Any, row: dict[str, Any]
) -> None:
    engine = create_database_engine(postgres_database)
    upgrade_database(engine)
    with engine.begin() as connection:
        connection.execute(table.insert().values(row))
    done = subprocess.run(
        [*PATROL, "demo", "--once", "--on-these-engines"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT),
             "PATROL_DATA_DIR": str(tmp_path / "data"), "PATROL_DATABASE_URL": postgres_database},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "holds more than a demo left there" in done.stderr
    with engine.connect() as connection:
        assert connection.execute(organisations.select()).all() == (
            [("1", "A customer", None, 1, None)] if table is organisations else []
        )
    engine.dispose()


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    for name in [name for name in os.environ if name.startswith("PATROL_")]:
        monkeypatch.delenv(name)
    return lambda flag=True, **given: refuse_real_services(
        load_settings(given), on_these_engines=flag
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://patrol@db.example/patrol", "postgresql://127.0.0.1.example/patrol",
        "postgresql:///patrol?host=db.example", "postgresql://127.0.0.1/patrol?hostaddr=10.0.0.1",
        "postgresql://10.0.0.1/patrol", "postgresql:///patrol",
    ],
)  # fmt: skip
def test_only_this_machines_database_will_do(refuse: Callable[..., None], url: str) -> None:
    with pytest.raises(ConfigurationError, match="not on this machine's loopback"):
        refuse(database_url=url)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.1.2.3"])
def test_this_machines_engines_will_do_when_they_are_named(
    refuse: Callable[..., None], host: str
) -> None:
    given = {
        "database_url": f"postgresql://patrol:secret@{host}:5432/patrol",
        "broker_url": f"redis://patrol:secret@{host}:6379/0",
    }
    refuse(**given)
    with pytest.raises(ConfigurationError, match="unset PATROL_DATABASE_URL"):
        refuse(flag=False, **given)


def test_a_mailbox_is_never_anybodys(refuse: Callable[..., None]) -> None:
    with pytest.raises(ConfigurationError, match="unset PATROL_SMTP_URL"):
        refuse(smtp_url="smtp://127.0.0.1")
    with pytest.raises(ConfigurationError, match="loopback"):
        refuse(broker_url="redis://redis.example/0")
