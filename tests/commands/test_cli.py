"""The command line as a whole: help, exit codes, and one sentence instead of a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scanner import __version__
from tests.servers.postgres import PostgresServer

COMMANDS = [
    "demo", "up", "doctor", "scan", "patterns", "leaks", "audit", "tokens", "owners",
    "organisations", "policy", "keys", "watch", "web", "worker", "beat", "healthcheck",
    "mail", "db",
]  # fmt: skip
GROUPS = {
    "tokens": ["issue", "list", "show", "update", "rotate", "revoke", "expire", "import"],
    "owners": ["create", "list", "show", "update", "disable", "enable"],
    "organisations": ["create", "list", "show", "update", "disable", "enable"],
    "policy": ["show", "set"],
    "leaks": ["list", "show"],
    "audit": ["list", "verify"],
    "watch": ["add", "list", "remove", "run"],
    "patterns": ["list", "test", "import"],
    "db": ["upgrade", "copy"],
    "keys": ["list", "rotate", "destroy", "wrap-digests"],
}


def one_sentence(done, said: str) -> None:
    """Exit code 2, and one line that says what is wrong."""
    assert done.code == 2, done
    assert done.out == ""
    assert re.search(said, done.err), done.err
    assert len(done.err.strip().splitlines()) == 1
    assert done.err.startswith("patrol: ")
    assert "Traceback" not in done.err


# Help.


def test_help_lists_every_command_at_80_columns(bare) -> None:
    done = bare("--help")
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.lines)) <= 80
    listed = re.findall(r"^  ([a-z]+) +\S.*$", done.out, re.MULTILINE)
    assert listed == COMMANDS
    for line in done.lines:  # each says what it is for, on one line
        assert not re.match(r" {6,}\S", line), line


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_lists_its_commands(bare, group: str) -> None:
    done = bare(group, "--help")
    assert done.code == 0
    listed = re.findall(r"^  ([a-z-]+)  +\S", done.out.split("Commands:")[1], re.MULTILINE)
    assert sorted(listed) == sorted(GROUPS[group])
    without = bare(group)
    assert without.code == 2
    assert "Usage: patrol " + group in without.err


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in GROUPS])
def test_every_command_explains_itself(bare, command: str) -> None:
    done = bare(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0].startswith(f"Usage: patrol {command} ")
    assert not bare.data.exists()  # and does nothing else


@pytest.mark.parametrize(
    "command", [(group, command) for group in GROUPS for command in GROUPS[group]], ids="-".join
)
def test_every_list_can_be_json(bare, command: tuple[str, str]) -> None:
    done = bare(*command, "--help")
    assert done.code == 0
    assert ("--format [table|json]" in done.out) == (command[1] in {"list", "show"})


def test_the_version(bare) -> None:
    assert bare("--version").out == f"patrol, version {__version__}\n"


# What is typed wrong.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["--nonsense"], "No such option"),
        (["tokens", "nonsense"], "No such command"),
        (["tokens", "list", "--format=xml"], "is not one of 'table', 'json'"),
        (["tokens", "show"], "Missing argument"),
        (["tokens", "issue"], "Missing option"),
        (["tokens", "list", "extra"], "unexpected extra argument"),
        (["audit", "list", "--limit=x"], "not a valid integer"),
        (["audit", "list", "--limit=0"], "not in the range"),
        (["audit", "list", "--limit=99999999999999999999"], "not in the range"),
        (["scan", "cloud"], "is not one of"),
        (["scan", "dir", ".", "--exit-code=256"], "not in the range"),
        (["worker", "--concurrency=0"], "not in the range"),
        (["watch", "add", "acme/app", "--every=often"], "a number and s, m, h or d"),
        (["policy", "set"], "give --organisation and --auto-revoke, or --release-store"),
        (["patterns", "test", "missing.toml"], "does not exist"),
    ],
)
def test_a_command_typed_wrong_is_usage(bare, arguments: list[str], said: str) -> None:
    done = bare(*arguments)
    assert (done.code, done.out) == (2, "")
    assert said in " ".join(done.err.split())
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tokens", "show", "nobody"], "There is no token 'nobody'"),
        (["tokens", "revoke", "nobody"], "There is no token 'nobody'"),
        (["leaks", "show", "nothing"], "There is no leak nothing"),
        (["watch", "remove", "a/b"], "a/b is not on the watch list; see: patrol watch list"),
        (["watch", "run", "a/b"], "a/b is not on the watch list"),
        (["policy", "set", "--organisation=X", "--auto-revoke=on"], "no organisation 'X'; known"),
        (["policy", "set", "--release-store=x"], "The store x is not frozen"),
    ],
)
def test_what_is_not_there_is_one_sentence(patrol, arguments: list[str], said: str) -> None:
    one_sentence(patrol(*arguments), said)


# What is set wrong.

NEEDS_DATABASE = [
    ["tokens", "list"], ["policy", "show"], ["leaks", "list"], ["audit", "list"], ["watch", "list"],
    ["audit", "verify"], ["web"], ["worker"], ["doctor", "--retry"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", NEEDS_DATABASE, ids=" ".join)
def test_without_a_database_it_says_how_to_make_one(bare, arguments: list[str]) -> None:
    one_sentence(bare(*arguments), "run: patrol db upgrade")


def test_a_data_directory_that_is_a_file_is_one_sentence(bare) -> None:
    bare.data.write_text("")
    for arguments in (["tokens", "list"], ["db", "upgrade"], ["up"], ["scan", "dir", "."], ["web"]):
        one_sentence(bare(*arguments), "data.* cannot be written .*PATROL_DATA_DIR")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "PATROL_DATABASE_URL is not a database address"),
        ("nonsense://x", "PATROL_DATABASE_URL"),
        ("postgresql://user:hush-hush@127.0.0.1:1/x", "Connection refused"),
        ("sqlite:///{folder}", "unable to open database file"),
        ("sqlite:///{file}/x.db", "cannot be written"),
        ("sqlite:///{garbage}", "not a database"),
    ],
)
def test_a_database_address_that_does_not_serve_is_one_sentence(
    bare, tmp_path: Path, url: str, said: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage").write_bytes(b"no database, whatever it was " * 100)
    (tmp_path / "file").touch()
    places = {name: tmp_path / name for name in ("folder", "garbage", "file")}
    bare.set(PATROL_DATABASE_URL=url.format(**places))
    for arguments in (["tokens", "list"], ["db", "upgrade"], ["up"]):
        done = bare(*arguments)
        one_sentence(done, said)
        assert "hush" not in done.err


def test_a_postgresql_database_that_is_not_there_is_one_sentence(
    bare, postgres_server: PostgresServer
) -> None:
    for url, said in (
        (postgres_server.url("nonesuch"), 'database "nonesuch" does not exist'),
        (postgres_server.url("postgres", user="ada:hush-hush"), 'role "ada" does not exist'),
    ):
        bare.set(PATROL_DATABASE_URL=url)
        done = bare("tokens", "list")
        one_sentence(done, said)
        assert "hush" not in done.err


def test_a_wrong_pepper_is_one_sentence_and_nothing_is_answered(patrol) -> None:
    patrol.issue()
    for peppers in ("k1:another-pepper-altogether", "k2:another-pepper-altogether"):
        patrol.set(PATROL_PEPPERS=peppers)
        for arguments in (["tokens", "list"], ["web"], ["worker"]):
            done = patrol(*arguments)
            one_sentence(done, "pepper")
            assert "another-pepper" not in done.err


def test_a_database_that_lacks_a_table_is_one_sentence(patrol) -> None:
    services = patrol.services()
    with services.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE watches")
    services.engine.dispose()
    one_sentence(
        patrol("watch", "list"),
        'The database did not answer .*(no such table: watches|"watches" does not exist)',
    )


@pytest.mark.parametrize("name", ["PATROL_PORT", "PATROL_LEASE_SECONDS", "PATROL_HOOKS"])
def test_a_setting_that_is_nonsense_is_one_sentence(bare, name: str) -> None:
    bare.set(**{name: "hush-hush"})
    done = bare("tokens", "list")
    one_sentence(done, name)
    assert "hush" not in done.err


# A process of its own.


def test_exit_codes_reach_the_shell(patrol, tmp_path: Path, token: Callable[[], str]) -> None:
    (tmp_path / "leak").write_text(token())
    for arguments, code in (
        (["patterns", "list"], 0),
        (["scan", "dir", tmp_path / "leak", "--exit-code", "7"], 7),
        (["scan", "dir", tmp_path / "missing"], 2),
    ):
        done = patrol.process(*arguments)
        assert done.returncode == code, done
        assert b"Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(
    patrol, tmp_path: Path, token: Callable[[], str]
) -> None:
    (tmp_path / "leaks").write_text("\n".join(token() for _ in range(2_000)))
    process = subprocess.Popen(
        [sys.executable, "-m", "scanner.cli", "scan", "dir", tmp_path / "leaks"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == f"{tmp_path}/leaks\n".encode()
    assert b"npm-access-token" in process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == 1


def test_a_terminal_that_cannot_show_everything_is_no_error(
    patrol, tmp_path: Path, token: Callable[[], str]
) -> None:
    secret = token()
    (tmp_path / "ü").write_text(secret)
    done = patrol.process("scan", "dir", tmp_path / "ü", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (1, b"")
    assert rf"npm_\u2026{secret[-4:]}".encode() in done.stdout
    patrol.issue("--pattern=azure-devops-pat")
    table = patrol.process("tokens", "list", PYTHONIOENCODING="latin-1")
    assert (table.returncode, table.stderr) == (0, b"")


def test_a_crash_writes_no_keys_to_a_disk() -> None:
    """Neither this process nor one it starts leaves a core dump, or pipes one to a collector."""
    program = (
        "import resource\nfrom scanner.cli import main\n"
        "try:\n    main(['--version'])\n"
        "except SystemExit:\n    print(resource.getrlimit(resource.RLIMIT_CORE))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] in ("(1, 1)", "(0, 0)")
