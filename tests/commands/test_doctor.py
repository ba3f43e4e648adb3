"""patrol doctor: a line a connection, and for each that is wrong what to do about it."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from sqlalchemy import delete, update

from scanner.commands.checks import Concern, judge_clock
from scanner.db import freezes, heartbeats
from scanner.db.clock import now_ms
from scanner.db.schema import audit_events, scans
from scanner.db.schema import heartbeats as beats
from scanner.slots import NAMES as NAMES_OF_QUEUES
from scanner.stores.memory import MemoryTokenStore
from tests.databases import drop_guards, on_postgresql, on_sqlite
from tests.servers.token_service import Fault, TokenService, raw, status

NAMES = [
    "data directory", "settings", "git", "git host", "database", "clock", "keys", "patterns",
    "parsing child", "token store", "work", "processes", "metrics", "audit trail",
    "broker", "blob ledger", "mail server",
]  # fmt: skip


@pytest.fixture
def well(patrol, smtp_server: Any) -> Any:
    """An installation that lacks nothing."""
    patrol.set(PATROL_SMTP_URL=f"smtp://127.0.0.1:{smtp_server.port}")
    reach(patrol, smtp_server.port)  # whatever listens there
    return patrol


def reach(patrol: Any, port: int) -> None:
    """Let the git host be at a port of this machine."""
    patrol.set(PATROL_GITHUB_URL=f"http://127.0.0.1:{port}", PATROL_ALLOW_HOSTS="127.0.0.1")


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that nobody listens at, and nobody else gets meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def look(patrol, *arguments: str) -> tuple[dict[str, str], dict[str, str]]:
    """What is well, or no more than a concern, and what is not: name -> the rest of its line."""
    done = patrol("doctor", *arguments)
    assert done.err == ""
    for line in done.lines:
        assert len(line) <= 80 or " " not in line.strip(), line  # a word alone is not broken
    whole = re.sub(r"\n      (?=\S)", " ", done.out).splitlines()
    lines = [re.fullmatch(r"(ok   |warn |FAIL ) ([a-z ]+): (.+)", line) for line in whole]
    assert all(lines), done.out
    told = [(line[1], line[2], line[3]) for line in lines if line]
    assert [name for _, name, _ in told] == NAMES
    failed = {name: text for state, name, text in told if state == "FAIL "}
    assert done.code == (2 if failed else 0)
    return {name: text for state, name, text in told if state != "FAIL "}, failed


def concern(patrol: Any, name: str) -> str:
    """What one check says that is a concern, and no failure."""
    (found,) = (one for one in patrol("doctor", "--format=json").json() if one["name"] == name)
    assert found["state"] == "warn"
    return str(found["message"])


def test_nothing_is_wrong(well) -> None:
    fine, failed = look(well)
    assert failed == {}
    assert re.match(r"\d+ patterns compiled; the store answers for azure", fine["patterns"])
    assert fine["audit trail"] == "0 events sealed, 0 waiting"
    assert fine["broker"] == "the embedded one, 0 wakes wait"
    assert fine["keys"] == "they are this database's; newest pepper, fingerprint and seal: " + (
        ", ".join(ring[0].id for ring in rings(well))
    )
    assert fine["git host"].endswith(" can be reached")
    assert fine["clock"].endswith(" ms from the database's")
    assert fine["work"] == "nothing is parked, 0 rows wait to be taken"
    assert re.match(r".*/metrics by nobody yet; whoever has the API's token", fine["metrics"])
    assert re.match(r".* can be written, \d+ MB are free", fine["data directory"])


def rings(patrol: Any) -> list[Any]:
    settings = patrol.services().settings
    return [settings.pepper_ring, settings.fingerprint_ring, settings.seal_ring]


@on_sqlite
def test_sqlite_says_how_durable_it_is(well) -> None:
    said = look(well)[0]["database"]
    assert re.fullmatch(
        r"SQLite 3[\d.]+, [\d.]+ ms away, journal wal, synchronous full; the schema is current",
        said,
    )


@on_postgresql
def test_postgresql_says_how_durable_it_is(well) -> None:
    said = look(well)[0]["database"]
    assert re.fullmatch(
        r"PostgreSQL [\d.]+, [\d.]+ ms away, synchronous_commit on; the schema is current", said
    )


def test_the_same_as_json(well) -> None:
    found = well("doctor", "--format=json").json()
    assert [one["name"] for one in found] == NAMES
    assert {one["state"] for one in found} <= {"ok", "warn"}
    well.set(PATROL_SMTP_URL="http://127.0.0.1")
    done = well("doctor", "--format=json", "--retry")
    (failed,) = (one for one in json.loads(done.out) if one["state"] == "fail")
    assert (done.code, failed["name"]) == (2, "mail server")
    assert done.err == "0 parked rows go back to work.\n"


@pytest.mark.parametrize(("seconds", "is_concern"), [(0.0, False), (4.9, False), (5.1, True)])
def test_a_clock_that_is_wrong_is_a_concern(seconds: float, is_concern: bool) -> None:
    assert isinstance(judge_clock(seconds), Concern) is is_concern


def test_nobody_has_ever_reported(well) -> None:
    assert concern(well, "processes").startswith("none has ever reported; start them: patrol up")


@pytest.fixture
def report(well) -> Iterator[Callable[..., None]]:
    """Let processes have reported so many seconds ago, and no others."""
    services = well.services()

    def write(ages: dict[str, int]) -> None:
        with services.database.begin() as connection:
            connection.execute(delete(beats))
            for name, seconds in ages.items():
                heartbeats.report(connection, name)
                at = now_ms(connection) - seconds * 1000
                connection.execute(update(beats).where(beats.c.name == name).values(at=at))

    yield write
    services.engine.dispose()


ROUND, BEAT = heartbeats.ROUND, heartbeats.BEAT
ALL = {f"worker:{','.join(NAMES_OF_QUEUES)}": 5}


def test_all_processes_report(well, report: Callable[..., None]) -> None:
    report({BEAT: 1, ROUND: 1, "prune-unknown": 3_000, **ALL})
    assert look(well)[0]["processes"] == "beat, and a worker for every queue, reported within 30 s"
    report({BEAT: 1, ROUND: 1, **ALL, "worker:deliver": 90})
    assert re.fullmatch(
        r"beat, and a worker for every queue, reported within 30 s "
        r"\(silent, perhaps taken away: worker:deliver for 9\d s\)",
        look(well)[0]["processes"],
    )


@pytest.mark.parametrize(
    ("ages", "said"),
    [
        ({BEAT: 1, ROUND: 1}, r"no worker has reported for 30 seconds; start: patrol worker"),
        (
            {BEAT: 1, ROUND: 1, "worker:respond,recheck": 1, "worker:deliver": 60},
            r"nobody works on deliver, .*; start: patrol worker --queues deliver,\S+; "
            r"silent: worker:deliver for 6\d s",
        ),
        # Somebody else does its round: beat is missing all the same.
        (
            {BEAT: 60, ROUND: 1, **ALL},
            r"beat has been silent for 30 seconds, workers do its round; start: patrol beat; "
            r"silent: beat for 6\d s",
        ),
        ({ROUND: 1, **ALL}, "beat has never reported, workers do its round; start: patrol beat"),
        (
            {BEAT: 60, ROUND: 60, **ALL},
            r"beat has been silent for 30 seconds, nothing is scheduled or swept; .*",
        ),
    ],
)
def test_a_process_that_is_missing(
    well, report: Callable[..., None], ages: dict[str, int], said: str
) -> None:
    report(ages)
    assert re.fullmatch(said, concern(well, "processes"))


def test_work_that_nobody_takes(well) -> None:
    well("watch", "add", "acme/app")
    well("watch", "run", "acme/app")
    services = well.services()
    with services.database.begin() as connection:
        then = now_ms(connection) - 500_000
        connection.execute(update(scans).values(available_at=then))
    services.engine.dispose()
    _, failed = look(well)
    assert list(failed) == ["work"]
    assert re.fullmatch(
        r"1 rows wait to be taken, the first for 50\d s; start a worker, or more", failed["work"]
    )


def test_a_disk_without_room(well) -> None:
    well.set(PATROL_MIN_FREE_BYTES=1 << 60)
    _, failed = look(well)
    assert list(failed) == ["data directory"]
    assert re.search(r"only \d+ MB are free for .*; make room", failed["data directory"])


def test_a_git_host_that_is_away(well, dead_port: int) -> None:
    reach(well, dead_port)
    assert concern(well, "git host") == (
        f"http://127.0.0.1:{dead_port}: It takes no connection. "
        "Check PATROL_GITHUB_URL and the network."
    )
    well.set(PATROL_ALLOW_HOSTS="another.example")
    assert "Only https is allowed" in concern(well, "git host")


def test_a_machine_where_it_never_ran(bare, dead_port: int) -> None:
    bare.set(PATROL_SMTP_PORT=dead_port)
    reach(bare, dead_port)
    _, failed = look(bare)
    assert set(failed) == {
        "database", "keys", "token store", "work", "processes", "audit trail",
        "mail server"
    }  # fmt: skip
    assert "run: patrol db upgrade" in failed["database"]
    assert failed["token store"] == "the same as database"
    assert "start patrol up, or set PATROL_SMTP_URL" in failed["mail server"]


def test_a_data_directory_that_is_a_file(bare) -> None:
    bare.data.write_text("")
    reach(bare, 9)
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
    assert set(failed) == {
        "database", "clock", "keys", "token store", "work", "processes",
        "audit trail"
    }  # fmt: skip


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
    # A broker that is Redis holds the ledger's copy as well.
    assert list(failed) == (["broker", "blob ledger"] if scheme == "redis" else ["broker"])
    assert all(f"127.0.0.1:{dead_port}" in said for said in failed.values())
    assert failed["broker"].endswith("start it, or set PATROL_BROKER_URL")
    assert "hush" not in str(failed)


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
