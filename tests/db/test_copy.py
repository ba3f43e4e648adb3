"""An installation moves from SQLite to PostgreSQL: all of it, as it was, or nothing."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    Engine,
    Integer,
    LargeBinary,
    Table,
    TypeDecorator,
    event,
    insert,
    select,
)
from sqlalchemy.exc import DBAPIError

from scanner.db import audit, bulk
from scanner.db.copy import CopiedTable, UnfitError, copy_database
from scanner.db.engine import create_database_engine, reader
from scanner.db.schema import (
    audit_events,
    audit_queue,
    heartbeats,
    key_checks,
    metadata,
    organisations,
    owners,
    scans,
)
from scanner.db.upgrade import is_current, upgrade_database
from scanner.errors import ConfigurationError, FinalError
from scanner.model import AuditAction
from tests.servers.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
Open = Callable[[str], Engine]
ROWS = 40  # a table
MANY = 100_000


@pytest.fixture
def open_engine() -> Iterator[Open]:
    made: list[Engine] = []

    def build(url: str) -> Engine:
        made.append(create_database_engine(url))
        return made[-1]

    yield build
    for engine in made:
        engine.dispose()


@pytest.fixture(scope="module")
def filled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with rows in every table, half of the audit trail sealed."""
    path = tmp_path_factory.mktemp("filled") / "patrol.db"
    engine = create_database_engine(f"sqlite:///{path}")
    upgrade_database(engine)
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            if table.name not in ("audit_queue", "audit_seals"):  # these the trail fills itself
                connection.execute(insert(table), rows_of(connection, table))
            if table is audit_events:
                while audit.seal(connection):
                    pass
        for number in range(ROWS):
            audit.record(connection, AuditAction.LEAK_FOUND, number=number)
    engine.dispose()
    return path


def rows_of(connection: Any, table: Table) -> list[Any]:
    """Random rows that hold to the columns' types, keys and foreign keys."""
    rng = random.Random(table.name)
    parents: dict[str, list[Any]] = {}
    for column in table.columns:
        for key in column.foreign_keys:
            parents[column.name] = list(connection.execute(select(key.column)).scalars())
    made = []
    for number in range(ROWS):
        row = {column.name: value_of(column, rng) for column in table.columns}
        for name, keys in parents.items():
            row[name] = keys[number % len(keys)]
        made.append(row)
    return made


def value_of(column: Any, rng: random.Random) -> Any:
    kind = column.type
    if isinstance(kind, TypeDecorator):
        kind = kind.impl_instance
    if column.nullable and rng.random() < 0.3:
        return None
    if isinstance(kind, Boolean):
        return rng.random() < 0.5
    if isinstance(kind, Integer):
        return rng.choice([-1, 1]) * rng.getrandbits(31 if type(kind) is Integer else 63)
    if isinstance(kind, LargeBinary):
        return rng.randbytes(rng.randrange(50))
    if isinstance(kind, JSON):
        return {text_of(rng, 20): [text_of(rng, 20), None, rng.random(), True, 1 << 70, {}]}
    return text_of(rng, kind.length, least=min(kind.length, 8))


def text_of(rng: random.Random, most: int, least: int = 0) -> str:
    """Any text PostgreSQL takes: quotes, line ends, backslashes, every plane, right to left."""
    plain = ["\t", "\n", "\r", "\\", "\\N", "'", '"', "\x7f", "é", "😀", "\u202e", "\ufeff"]
    length = rng.randint(least, min(most, 60))
    characters = [
        rng.choice([chr(rng.randrange(32, 127)), rng.choice(plain)[0], any_character(rng)])
        for _ in range(length)
    ]
    return "".join(characters)


def any_character(rng: random.Random) -> str:
    while True:
        code = rng.randrange(1, 0x110000)
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def content(engine: Engine) -> dict[str, list[Any]]:
    """Every table's rows, sorted here: databases sort text as they like."""
    with reader(engine).connect() as connection:
        return {
            table.name: sorted(bulk.read(connection, table), key=repr)
            for table in metadata.sorted_tables
        }


def tables_in(database: str) -> list[str]:
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return sorted(name for (name,) in rows)


@pytest.fixture
def source_file(filled_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(filled_file, tmp_path / "patrol.db"))


@pytest.fixture
def source(source_file: Path, open_engine: Open) -> Engine:
    return open_engine(f"sqlite:///{source_file}")


@pytest.fixture
def target(postgres_database: str, open_engine: Open) -> Engine:
    return open_engine(postgres_database)


def test_everything_arrives_as_it_was(
    source: Engine, source_file: Path, target: Engine, open_engine: Open
) -> None:
    copied: list[CopiedTable] = []
    trail = copy_database(source, target, copied.append)
    source.dispose()
    assert [(one.name, one.rows >= ROWS) for one in copied] == [
        (table.name, True) for table in metadata.sorted_tables
    ]
    before = content(open_engine(f"sqlite:///{source_file}"))
    assert content(target) == before
    assert (trail.sealed, trail.unsealed, trail.problems) == (ROWS, ROWS, ())
    with reader(target).connect() as connection:
        assert audit.verify(connection) == trail


def test_life_goes_on_there(source: Engine, target: Engine) -> None:
    copy_database(source, target)
    assert is_current(target)
    with target.begin() as connection:
        waiting = connection.execute(select(audit_queue.c.event_id)).scalars().all()
        assert len(waiting) == ROWS  # once each, not once more for their arrival
        audit.record(connection, AuditAction.LEAK_FOUND, number=ROWS)
        newest = select(audit_queue.c.event_id).order_by(audit_queue.c.number.desc()).limit(1)
        assert connection.execute(newest).scalar_one() not in waiting
        assert audit.seal(connection) == ROWS + 1
        found = audit.verify(connection)
        assert (found.sealed, found.unsealed, found.problems) == (2 * ROWS + 1, 0, ())
        order = select(audit_events.c.data).join(
            audit.audit_seals, audit.audit_seals.c.event_id == audit_events.c.id
        )
        told = connection.execute(order.order_by(audit.audit_seals.c.sequence)).scalars().all()
        assert [data["number"] for data in told[ROWS:]] == list(range(ROWS + 1))
    with pytest.raises(DBAPIError, match="immutable"), target.begin() as connection:
        connection.execute(audit_events.update().values(actor="nobody"))
    with pytest.raises(DBAPIError, match="foreign key"), target.begin() as connection:
        connection.execute(
            insert(owners).values(id="nobody", organisation_id="none", name="Nobody")
        )


def test_a_later_release_goes_back_and_forth(
    source: Engine, source_file: Path, target: Engine, tmp_path: Path, open_engine: Open
) -> None:
    trail = copy_database(source, target)
    source.dispose()
    target.dispose()
    back = open_engine(f"sqlite:///{tmp_path}/back.db")
    assert copy_database(target, back) == trail
    assert content(back) == content(open_engine(f"sqlite:///{source_file}"))
    with back.begin() as connection:  # its triggers are there again
        audit.record(connection, AuditAction.LEAK_FOUND)
        assert audit.seal(connection) == ROWS + 1
    with pytest.raises(DBAPIError, match="immutable"), back.begin() as connection:
        connection.execute(audit_events.update().values(actor="nobody"))


def test_a_target_that_was_upgraded_and_looked_at_is_empty(source: Engine, target: Engine) -> None:
    upgrade_database(target)
    with target.begin() as connection:
        connection.execute(insert(key_checks).values(purpose="pepper", key_id="k1", value="other"))
        connection.execute(insert(heartbeats).values(name="beat", at=1))
    copy_database(source, target)


def test_a_target_that_holds_anything_is_refused(source: Engine, target: Engine) -> None:
    upgrade_database(target)
    with target.begin() as connection:
        connection.execute(insert(organisations).values(id="1", name="Contoso", created_at=1))
    with pytest.raises(ConfigurationError, match="not empty, it has organisations"):
        copy_database(source, target)


def test_a_target_of_another_application_is_refused(
    source: Engine, target: Engine, postgres_database: str
) -> None:
    with target.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE tokens (id INT)")
    with pytest.raises(ConfigurationError, match="another application"):
        copy_database(source, target)
    assert tables_in(postgres_database) == ["tokens"]


def test_a_target_that_is_worked_on_is_refused(
    source: Engine, target: Engine, open_engine: Open, postgres_database: str
) -> None:
    upgrade_database(target)
    worker = open_engine(postgres_database)
    with worker.connect() as connection:
        connection.execute(insert(heartbeats).values(name="beat", at=1))
        with pytest.raises(ConfigurationError, match="works on the database"):
            copy_database(source, target, lock_seconds=0.2)


def test_a_source_of_an_earlier_version_is_refused(
    tmp_path: Path, target: Engine, open_engine: Open
) -> None:
    with pytest.raises(ConfigurationError, match="patrol db upgrade"):
        copy_database(open_engine(f"sqlite:///{tmp_path}/new.db"), target)


def test_a_source_that_is_no_database_is_one_sentence(
    tmp_path: Path, target: Engine, open_engine: Open
) -> None:
    (tmp_path / "patrol.db").write_bytes(b"this is no database, and never was one " * 100)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        copy_database(open_engine(f"sqlite:///{tmp_path}/patrol.db"), target)


HOLDER = """
import sys
from sqlalchemy import text
from scanner.db.engine import create_database_engine, reader
engine = create_database_engine(sys.argv[1])
with reader(engine).connect() as connection:
    connection.execute(text("SELECT count(*) FROM scans"))
print("idle", flush=True)  # as a worker between two wakes: its pool holds the connection
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_source_that_somebody_has_open_is_refused(
    kind: str, source: Engine, source_file: Path, target: Engine, tmp_path: Path, open_engine: Open
) -> None:
    url = f"sqlite:///{source_file}"
    if kind == "postgresql":
        copy_database(source, target)
        target.dispose()
        source, target = target, open_engine(f"sqlite:///{tmp_path}/other.db")
        url = source.url.render_as_string(hide_password=False)
    worker = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "idle\n"
        with pytest.raises(ConfigurationError, match="Something still uses"):
            copy_database(source, target, lock_seconds=0.2)
        worker.communicate("")
    source.dispose()
    copy_database(source, target)


def test_nobody_opens_the_source_while_it_is_copied(
    source: Engine, source_file: Path, target: Engine
) -> None:
    refused: list[str] = []

    def look(_table: CopiedTable) -> None:
        late = sqlite3.connect(source_file, timeout=0)
        with pytest.raises(sqlite3.OperationalError) as error:
            late.execute("INSERT INTO heartbeats VALUES ('late', 1)")
        late.close()
        refused.append(str(error.value))

    copy_database(source, target, look)
    assert set(refused) == {"database is locked"}


def test_what_arrives_changed_is_not_kept(
    source: Engine, target: Engine, postgres_database: str
) -> None:
    """A rule of the target's own rewrites a row on its way in."""
    upgrade_database(target)
    target.dispose()

    @event.listens_for(target, "after_cursor_execute")
    def spoil(_connection: Any, cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("SELECT setval"):
            cursor.connection.cursor().execute("UPDATE watches SET every_ms = every_ms + 1")

    with pytest.raises(FinalError, match=r"watches: what arrived \(40 rows\) is not what was sent"):
        copy_database(source, target)
    with reader(target).connect() as connection:
        assert connection.execute(select(scans)).first() is None


def test_a_full_disk_or_a_lost_server_is_one_sentence(
    source: Engine, postgres_server: PostgresServer, open_engine: Open
) -> None:
    name = postgres_server.create_database()
    target = open_engine(postgres_server.url(name))

    @event.listens_for(target, "after_cursor_execute")
    def lose(_connection: Any, cursor: Any, statement: str, *_rest: Any) -> None:
        if "DISABLE TRIGGER" in statement:
            postgres_server.execute(
                f"SELECT pg_terminate_backend({cursor.connection.info.backend_pid})"
            )

    with pytest.raises((FinalError, DBAPIError), match=r"terminat|closed"):
        copy_database(source, target)
    target.dispose()
    assert tables_in(postgres_server.url(name)) == []
    postgres_server.drop_database(name)


def spoil(path: Path, statement: str, *values: Any) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA foreign_keys = OFF")
    database.execute(statement, values)
    database.commit()
    database.close()


MISFITS = {
    "a long text": ("UPDATE watches SET id = ? WHERE rowid = 1", "x" * 25, "has 25 characters, 24"),
    "a NUL": ("UPDATE owners SET name = ? WHERE rowid = 1", "a\0b", "holds a NUL"),
    "no UTF-8": (
        "UPDATE owners SET name = CAST(? AS TEXT) WHERE rowid = 1", b"\xff\xfe", "is not UTF-8",
    ),
    "half a character": (
        "UPDATE owners SET name = CAST(? AS TEXT) WHERE rowid = 1", b"\xed\xa0\x80", "not UTF-8",
    ),
    "bytes as text": ("UPDATE owners SET name = ? WHERE rowid = 1", b"ada", "is no text"),
    "text as bytes": ("UPDATE scans SET sealed = ? WHERE rowid = 1", "text", "is not bytes"),
    "text as a number": ("UPDATE scans SET objects = ? WHERE rowid = 1", "many", "a whole number"),
    "a large number": ("UPDATE scans SET objects = ? WHERE rowid = 1", 1 << 31, "of 32 bits"),
    "a fraction": ("UPDATE scans SET received_at = ? WHERE rowid = 1", 0.5, "a whole number"),
    "a third truth": ("UPDATE scans SET forced = ? WHERE rowid = 1", 2, "true or false"),
    "no JSON": ("UPDATE incidents SET token = ? WHERE rowid = 1", "{", "is no JSON"),
    "Python's JSON": ("UPDATE incidents SET token = ? WHERE rowid = 1", "[NaN]", "is no JSON"),
    "a long key": (
        "UPDATE sightings SET path = ? WHERE rowid = 1", "😀" * 700, "too long for an index",
    ),
    "no parent": (
        "UPDATE owners SET organisation_id = ? WHERE rowid = 1", "nobody", "not in organisations",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "value", "reason"), MISFITS.values(), ids=MISFITS)
def test_what_postgresql_refuses_is_found_before_anything_is_copied(
    source: Engine, source_file: Path, target: Engine, postgres_database: str,
    statement: str, value: Any, reason: str,
) -> None:  # fmt: skip
    spoil(source_file, statement, value)
    with pytest.raises(UnfitError) as error:
        copy_database(source, target)
    (found,) = error.value.misfits
    assert found.table == statement.split()[1]
    assert found.column in (statement.split()[3], "") or "path" in found.column
    assert found.row
    assert reason in found.reason
    assert tables_in(postgres_database) == []


def test_a_trail_that_was_changed_arrives_as_it_is(
    source: Engine, source_file: Path, target: Engine
) -> None:
    spoil(source_file, "DROP TRIGGER audit_events_no_update")
    spoil(source_file, "UPDATE audit_events SET actor = 'nobody' WHERE rowid = 1")
    trail = copy_database(source, target)
    assert len(trail.problems) == 1
    with reader(target).connect() as connection:
        assert audit.verify(connection) == trail


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trail of about 200 MB."""
    path = tmp_path_factory.mktemp("large") / "patrol.db"
    engine = create_database_engine(f"sqlite:///{path}")
    upgrade_database(engine)
    with engine.begin() as connection:
        for first in range(0, MANY, 10_000):
            connection.execute(
                insert(audit_events),
                [
                    {"id": f"{n:024}", "at": n, "action": "leak.found", "actor": "x",
                     "data": {"text": "é" * 300}}
                    for n in range(first, first + 10_000)
                ],
            )  # fmt: skip
        while audit.seal(connection):
            pass
    engine.dispose()
    return path


COPIER = """
import sys
from pathlib import Path
from scanner.db.copy import copy_database
from scanner.db.engine import create_database_engine
source, target = map(create_database_engine, sys.argv[1:])
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
print(copy_database(source, target).sealed, peak() - before)
"""


def copier(source: Path, target: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COPIER, f"sqlite:///{source}", target],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_large_trail_takes_no_more_memory(large_file: Path, postgres_database: str) -> None:
    printed, _ = copier(large_file, postgres_database).communicate(timeout=120)
    sealed, grown = map(int, printed.split())
    assert sealed == MANY
    assert grown < 40_000  # kB: imports, and a few batches


def test_killed_half_way_nothing_happened(
    large_file: Path, postgres_database: str, postgres_server: PostgresServer, open_engine: Open
) -> None:
    killed = copier(large_file, postgres_database)
    name = postgres_database.rpartition("/")[2]
    deadline = time.monotonic() + 60
    progress = (
        "SELECT tuples_processed FROM pg_stat_progress_copy WHERE datname = current_database()"
    )
    while not any(
        count > MANY // 10 for (count,) in postgres_server.execute(progress, database=name)
    ):
        assert killed.poll() is None
        assert time.monotonic() < deadline
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert tables_in(postgres_database) == []
    source = open_engine(f"sqlite:///{large_file}")
    with reader(source).connect() as connection:
        found = audit.verify(connection)
    assert (found.sealed, found.unsealed, found.problems) == (MANY, 0, ())
