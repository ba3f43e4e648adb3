"""`patrol db copy`: what an operator types and reads when moving to PostgreSQL."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from scanner.db import audit
from tests.commands.conftest import Shell
from tests.databases import on_sqlite

pytestmark = on_sqlite  # the installation that moves


def test_a_moved_installation_goes_on_with_the_same_keys(
    patrol: Shell, postgres_database: str, tmp_path: Path
) -> None:
    raw, token_id = patrol.issue()
    incident_id = patrol.leak(raw)
    before = patrol("audit", "verify")
    address = tmp_path / "address"
    address.write_text(postgres_database + "\n")
    done = patrol("db", "copy", "--to-file", address)
    assert (done.code, done.err) == (0, "")
    assert "The audit trail verifies on both sides: 0 sealed, 4 waiting." in done.out
    assert "Now set PATROL_DATABASE_URL" in done.out
    counted = {words[1]: words[0] for words in map(str.split, done.lines) if len(words) == 3}
    assert (counted["tokens"], counted["incidents"], counted["audit_events"]) == ("1", "1", "4")

    patrol.set(PATROL_DATABASE_URL=postgres_database)
    assert [token["id"] for token in patrol("tokens", "list", "--format=json").json()] == [token_id]
    assert [leak["id"] for leak in patrol("leaks", "list", "--format=json").json()] == [incident_id]
    assert patrol("audit", "verify") == before
    (candidate,) = patrol.services().matcher.scan(raw.encode())
    services = patrol.services()
    (lookup,) = services.store.find([candidate.secret])
    services.engine.dispose()
    assert lookup.token is not None
    assert lookup.token.token_id == token_id


def test_the_wrong_keys_are_refused_there(
    patrol: Shell, postgres_database: str, tmp_path: Path
) -> None:
    patrol.issue()
    assert patrol("db", "copy", "--to", postgres_database).code == 0
    patrol.set(PATROL_DATABASE_URL=postgres_database, PATROL_DATA_DIR=tmp_path / "elsewhere")
    done = patrol("tokens", "list")
    assert done.code == 2
    assert "for pepper is not the one this database was made with" in done.err


def test_a_password_is_not_shown(patrol: Shell) -> None:
    done = patrol("db", "copy", "--to", "postgresql://patrol:geheim@127.0.0.1:1/patrol")
    assert done.code == 2
    assert "postgresql://patrol:***@127.0.0.1:1/patrol" in done.out
    assert "geheim" not in done.out + done.err
    assert done.err.count("\n") == 1
    assert "The database did not answer" in done.err


def test_rows_to_mend_are_named(patrol: Shell, postgres_database: str) -> None:
    patrol.issue()
    with sqlite3.connect(patrol.data / "patrol.db") as database:
        (row,) = database.execute(
            "UPDATE tokens SET name = ? RETURNING id", ["a\0\x1b[31m"]
        ).fetchone()
    database.close()
    done = patrol("db", "copy", "--to", postgres_database)
    assert done.code == 2
    assert done.err == (
        f"  tokens.name, row {row}: holds a NUL character\n"
        "patrol: PostgreSQL refuses what these rows hold; nothing was copied. "
        "Mend them, then repeat.\n"
    )


def test_a_changed_trail_is_told_and_moved(patrol: Shell, postgres_database: str) -> None:
    patrol.issue()
    services = patrol.services()
    with services.database.begin() as connection:
        assert audit.seal(connection) == 3
    services.engine.dispose()
    with sqlite3.connect(patrol.data / "patrol.db") as database:
        database.execute("DROP TRIGGER audit_events_no_update")
        database.execute("UPDATE audit_events SET actor = 'nobody'")
    database.close()
    done = patrol("db", "copy", "--to", postgres_database)
    assert done.code == 1
    assert "PROBLEM, here and there: the event of seal 1 was changed" in done.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "Name the new database"),
        (("--to", "postgresql:///x", "--to-file", "."), "Name the new database"),
        (("--to", "mysql://h/d"), "The new database's address: Patrol speaks SQLite"),
        (("--to", "nonsense"), "The new database's address is not a database address"),
    ],
)
def test_an_unclear_target_is_one_sentence(
    patrol: Shell, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    (tmp_path / "f").touch()
    options = tuple(str(tmp_path / "f") if option == "." else option for option in options)
    done = patrol("db", "copy", *options)
    assert done.code == 2
    assert said in done.err


def test_a_database_is_not_copied_onto_itself(patrol: Shell) -> None:
    done = patrol("db", "copy", "--to", f"sqlite:///{patrol.data}/../{patrol.data.name}/patrol.db")
    assert done.code == 2
    assert "the database Patrol uses now" in done.err
