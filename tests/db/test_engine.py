"""The engine: a committed row is durable, writers queue, and readers wait for nobody."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from scanner.db.engine import DATABASE_AWAY, create_database_engine, reader
from scanner.db.schema import sightings, store_freezes
from scanner.errors import ConfigurationError
from tests.databases import migrate, on_postgresql, on_sqlite
from tests.servers.postgres import PostgresServer


def freeze(engine: Engine, store: str) -> None:
    with engine.begin() as connection:
        connection.execute(insert(store_freezes).values(store=store, since=0, reason="x"))


def count(engine: Engine) -> int:
    with reader(engine).connect() as connection:
        return connection.execute(select(func.count()).select_from(store_freezes)).scalar_one()


@on_sqlite
def test_what_is_committed_to_a_file_survives_a_power_cut(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL


@pytest.mark.parametrize("setting", ["off", "local", "remote_apply"])
def test_what_is_committed_waits_for_the_disk_whatever_the_server_says(
    new_postgres: Callable[..., PostgresServer], setting: str
) -> None:
    server = new_postgres(options={"synchronous_commit": setting})
    engine = create_database_engine(server.url(server.create_database()))
    for each in (engine, reader(engine)):
        with each.connect() as connection:
            kept = connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()
            assert kept == ("remote_apply" if setting == "remote_apply" else "on")
    engine.dispose()


def test_a_server_that_was_killed_is_used_again(
    new_postgres: Callable[..., PostgresServer],
) -> None:
    server = new_postgres()
    migrate(url := server.url(server.create_database()))
    engine = create_database_engine(url)
    freeze(engine, "before")
    with engine.connect() as kept:
        server.kill()
        with pytest.raises(OperationalError):
            count(engine)
        server.start()
        assert count(engine) == 1
        freeze(engine, "after")
        assert count(engine) == 2
        kept.invalidate()
    engine.dispose()


@on_postgresql
def test_a_writer_that_hangs_stops_nobody_for_ever(engine: Engine) -> None:
    with engine.connect() as connection:
        bounds = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in ("lock_timeout", "idle_in_transaction_session_timeout")
        }
    assert bounds == {"lock_timeout": "20s", "idle_in_transaction_session_timeout": "1min"}


@on_postgresql
def test_a_transaction_that_the_server_ended_is_no_fault_of_its_row(
    engine: Engine, postgres_server: PostgresServer
) -> None:
    """As of a worker that was paused in it: what it held is free, and it goes on with another."""
    with engine.connect() as hanging:
        hanging.execute(insert(store_freezes).values(store="held", since=0, reason="x"))
        pid = hanging.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        hanging.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 1")
        deadline = time.monotonic() + 30
        while (pid,) in postgres_server.execute("SELECT pid FROM pg_stat_activity"):
            assert time.monotonic() < deadline
            time.sleep(0.01)  # the server tells its client, not us
        with pytest.raises(DATABASE_AWAY):
            hanging.exec_driver_sql("SELECT 1")
    freeze(engine, "held")
    assert count(engine) == 1


def test_a_row_must_have_what_it_refers_to(engine: Engine) -> None:
    row = dict.fromkeys((c.name for c in sightings.c), "1") | {"line": 1, "column": 1, "start": 1}
    row |= {"committed_at": 1, "seen_at": 1}
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"), engine.begin() as connection:
        connection.execute(insert(sightings).values(row))


def test_a_reader_does_not_wait_for_a_writer(engine: Engine, connect: Callable[[], Engine]) -> None:
    freeze(engine, "before")
    with engine.begin() as writing:
        writing.execute(insert(store_freezes).values(store="during", since=0, reason="x"))
        assert count(connect()) == 1
    assert count(engine) == 2


def test_a_reader_sees_one_moment(engine: Engine, connect: Callable[[], Engine]) -> None:
    freeze(engine, "one")
    with reader(connect()).connect() as reading:
        many = select(func.count()).select_from(store_freezes)
        assert reading.execute(many).scalar_one() == 1
        freeze(engine, "two")
        assert reading.execute(many).scalar_one() == 1


def test_errors_show_no_values(engine: Engine) -> None:
    hush = "-".join(["hush"] * 3)
    freeze(engine, hush)
    with pytest.raises(IntegrityError) as caught:
        freeze(engine, hush)
    told = "".join(traceback.format_exception(caught.value))
    assert hush not in told
    assert "store_freezes" in told


def test_the_folder_is_made(tmp_path: Path) -> None:
    engine = create_database_engine(f"sqlite:///{tmp_path / 'new' / 'patrol.db'}")
    engine.connect().close()
    engine.dispose()
    assert (tmp_path / "new" / "patrol.db").exists()


@pytest.mark.parametrize(
    "url", ["hush", "", "hush://x", "oracle://ada:hush@db.example/patrol", "mysql://hush"]
)
def test_an_address_that_is_none_is_refused_without_being_told(url: str) -> None:
    with pytest.raises(ConfigurationError, match="PATROL_DATABASE_URL") as caught:
        create_database_engine(url)
    assert "hush" not in str(caught.value)
