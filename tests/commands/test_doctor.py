"""patrol doctor: a line a connection, and for each that is wrong what to do about it."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from sqlalchemy import delete, update

from scanner.db import freezes
from scanner.db.schema import audit_events, scans
from scanner.stores.memory import MemoryTokenStore
from tests.databases import drop_guards, on_sqlite
from tests.servers.token_service import Fault, TokenService, raw, status

NAMES = [
    "data directory", "settings", "git", "database", "patterns", "parsing child", "token store",
    "work", "audit trail", "broker", "mail server",
]  # fmt: skip


@pytest.fixture
def well(patrol, smtp_server: Any) -> Any:
    """An installation that lacks nothing."""
    patrol.set(PATROL_SMTP_URL=f"smtp://127.0.0.1:{smtp_server.port}")
    return patrol


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that nobody listens at, and nobody else gets meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def look(patrol, *arguments: str) -> tuple[dict[str, str], dict[str, str]]:
    """What is well and what is not: name -> the rest of its line."""
    done = patrol("doctor", *arguments)
    assert done.err == ""
    lines = [re.fullmatch(r"(ok   |FAIL ) ([a-z ]+): (.+)", line) for line in done.lines]
    assert all(lines), done.out
    told = [(line[1], line[2], line[3]) for line in lines if line]
    assert [name for _, name, _ in told] == NAMES
    failed = {name: text for state, name, text in told if state == "FAIL "}
    assert done.code == (2 if failed else 0)
    return {name: text for state, name, text in told if state != "FAIL "}, failed


def test_nothing_is_wrong(well) -> None:
    fine, failed = look(well)
    assert failed == {}
    assert re.match(r"\d+ patterns compiled; the store answers for azure", fine["patterns"])
    assert fine["audit trail"] == "0 events sealed, 0 waiting"
    assert fine["broker"] == "the embedded one"


def test_a_machine_where_it_never_ran(bare, dead_port: int) -> None:
    bare.set(PATROL_SMTP_PORT=dead_port)
    _, failed = look(bare)
    assert set(failed) == {"database", "token store", "work", "audit trail", "mail server"}
    assert "run: patrol db upgrade" in failed["database"]
    assert "start patrol up, or set PATROL_SMTP_URL" in failed["mail server"]


def test_a_data_directory_that_is_a_file(bare) -> None:
    bare.data.write_text("")
    _, failed = look(bare)
    assert "set PATROL_DATA_DIR to another place" in failed["data directory"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATROL_GITHUB_WEBHOOK_SECRET", "changeme"),
        ("PATROL_API_TOKEN", "hush-hush"),
        ("PATROL_SEAL_KEYS", "k1:no-fernet-key-at-all"),
        ("PATROL_ALLOW_HOSTS", "10.0.0.0/99"),
    ],
)
def test_a_setting_that_a_service_would_refuse(well, name: str, value: str) -> None:
    well.set(**{name: value})
    _, failed = look(well)
    assert name in failed["settings"]
    if name != "PATROL_ALLOW_HOSTS":  # which is no secret
        assert value not in failed["settings"]


def test_no_git(well, tmp_path: Path) -> None:
    assert shutil.which("git")
    (tmp_path / "bin").mkdir()
    well.set(PATH=tmp_path / "bin")
    _, failed = look(well)
    assert failed == {"git": "git is not installed; on Debian: apt-get install git"}


def test_a_wrong_pepper(well) -> None:
    well.issue()
    well.set(PATROL_PEPPERS="k1:another-pepper-altogether")
    _, failed = look(well)
    assert "restore the right key" in failed["database"]


@on_sqlite
def test_a_database_that_is_none(well) -> None:
    for left in well.data.glob("patrol.db*"):
        left.unlink()
    (well.data / "patrol.db").mkdir()
    _, failed = look(well)
    assert "unable to open database file" in failed["database"]
    assert set(failed) == {"database", "token store", "work", "audit trail"}


def test_a_pattern_that_is_wrong(well, own_pattern: Callable[..., Path]) -> None:
    file = own_pattern(well.data / "patterns" / "acme.toml")
    file.write_text(file.read_text() + 'typo = "x"\n')
    _, failed = look(well)
    assert f"{file}, pattern acme-token: " in failed["patterns"]


def test_a_store_pattern_nobody_knows(well) -> None:
    well.set(PATROL_STORE_PATTERNS="azure-devops-pat,nonsense")
    _, failed = look(well)
    assert failed["patterns"] == "PATROL_STORE_PATTERNS names unknown patterns: nonsense."


def test_a_store_that_is_frozen_and_released(well) -> None:
    services = well.services()
    with services.database.begin() as connection:
        freezes.freeze(connection, "built-in", "it knew a token nobody issued")
    services.engine.dispose()
    _, failed = look(well)
    (said,) = failed.values()
    assert list(failed) == ["token store"]
    advice = said.split("patrol ")[-1].split()
    assert well(*advice).out == "The store built-in is released.\n"
    assert look(well)[1] == {}


def test_work_that_is_parked_and_put_back(well) -> None:
    well("watch", "add", "acme/app")
    well("watch", "run", "acme/app")
    services = well.services()
    with services.database.begin() as connection:
        connection.execute(update(scans).values(state="parked", error="The repo\x1b[2J is gone."))
    _, failed = look(well)
    assert failed == {
        "work": r"1 scans are parked; one says: The repo\x1b[2J is gone. "
        "When the cause is mended: patrol doctor --retry"
    }
    done = well("doctor", "--retry")
    assert (done.code, done.lines[0]) == (0, "1 parked rows go back to work.")
    assert look(well)[1] == {}
    services.engine.dispose()


def test_a_trail_that_was_changed(well) -> None:
    well("watch", "add", "acme/app")
    services = well.services()
    with services.engine.begin() as connection:
        drop_guards(connection)
        connection.execute(delete(audit_events))
    services.engine.dispose()
    _, failed = look(well)
    assert list(failed) == ["audit trail"]
    assert failed["audit trail"].startswith("the trail was changed: ")
    assert failed["audit trail"].endswith("; all of it: patrol audit verify")


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_away(well, dead_port: int, scheme: str) -> None:
    well.set(PATROL_BROKER_URL=f"{scheme}://user:hush-hush@127.0.0.1:{dead_port}//")
    _, failed = look(well)
    assert list(failed) == ["broker"]
    assert f"127.0.0.1:{dead_port}" in failed["broker"]
    assert failed["broker"].endswith("start it, or set PATROL_BROKER_URL")
    assert "hush" not in failed["broker"]


def test_a_broker_nobody_here_can_speak_to(well) -> None:
    well.set(PATROL_BROKER_URL="nonsense://127.0.0.1/0")
    _, failed = look(well)
    assert failed == {
        "broker": "PATROL_BROKER_URL: nothing here speaks nonsense://; use redis://host:6379/0"
    }


@pytest.mark.parametrize("url", ["mail.example", "smtp://", "smtp://h:99999", "http://127.0.0.1"])
def test_a_mail_server_that_is_no_address(well, url: str) -> None:
    well.set(PATROL_SMTP_URL=url)
    _, failed = look(well)
    assert list(failed) == ["mail server"]
    assert "PATROL_SMTP_URL" in failed["mail server"]


def test_a_mail_server_that_is_away(well, dead_port: int) -> None:
    well.set(PATROL_SMTP_URL=f"smtp://user:hush-hush@127.0.0.1:{dead_port}")
    _, failed = look(well)
    assert list(failed) == ["mail server"]
    assert f"127.0.0.1:{dead_port}" in failed["mail server"]
    assert "hush" not in failed["mail server"]


@pytest.fixture
def service() -> Iterator[TokenService]:
    with TokenService(MemoryTokenStore(), bearer=token_hex(16)) as running:
        yield running


@pytest.fixture
def connected(well, service: TokenService, tmp_path: Path) -> Any:
    """An installation whose tokens live in a service of the issuer's."""
    (tmp_path / "bearer").write_text(service.bearer or "")
    (tmp_path / "store.toml").write_text(f"""
        kind = "rfc"
        name = "acme"
        allow_hosts = ["127.0.0.1"]
        organisation.id = "acme"
        auth = {{ kind = "bearer", bearer_file = "bearer" }}
        introspect.url = "{service.url}/oauth/introspect"
        revoke.url = "{service.url}/oauth/revoke"
        limits.attempts = 1
    """)
    well.set(PATROL_STORE=tmp_path / "store.toml")
    return well


def test_a_token_service_says_what_it_can(connected, service: TokenService) -> None:
    fine, failed = look(connected)
    assert failed == {}
    assert fine["token store"] == (
        "acme answers, knows no token that nobody issued, tells active from inactive, "
        "revokes by the raw token"
    )
    assert len(service.asked) == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (status(401), "refused what we showed to sign in"),
        (status(503), "answered HTTP 503"),
        (raw(b"<html>", "text/html"), "something that is not JSON"),
        (raw(b'{"active": true, "jti": "t1"}'), "knows a token that was never issued"),
    ],
)
def test_a_token_service_that_is_not_right(
    connected, service: TokenService, fault: Fault, said: str
) -> None:
    service.faults = [fault] * 2
    _, failed = look(connected)
    assert list(failed) == ["token store"]
    assert said in failed["token store"]


def test_a_token_service_that_is_away(connected, service: TokenService) -> None:
    service.stop()
    _, failed = look(connected)
    assert failed == {"token store": "The store acme did not answer (ConnectError)."}


def test_a_token_service_that_is_described_wrong(connected, tmp_path: Path) -> None:
    (tmp_path / "bearer").write_text("changeme")
    _, failed = look(connected)
    assert list(failed) == ["token store"]
    assert failed["token store"].startswith(f"{tmp_path}/store.toml: auth.bearer_file: ")
    (tmp_path / "store.toml").unlink()
    _, failed = look(connected)
    assert failed == {"token store": f"{tmp_path}/store.toml cannot be read (No such file or "
                                     "directory)."}  # fmt: skip
