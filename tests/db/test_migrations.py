"""Migrations: from every earlier revision to this one, data kept, and safe to start at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, delete, insert, inspect, literal_column, select, text
from sqlalchemy.sql.expression import ColumnClause, TableClause

from scanner.db import audit, upgrade
from scanner.db import policies as db_policies
from scanner.db.dialect import POSTGRESQL, SQLITE
from scanner.db.engine import create_database_engine, reader
from scanner.db.schema import (
    audit_events,
    audit_queue,
    audit_seals,
    metadata,
    outbox,
    policies,
    scans,
)
from scanner.db.tokens import BUILT_IN
from scanner.db.upgrade import is_current, upgrade_database
from scanner.errors import ConfigurationError
from scanner.model import AuditAction
from tests.servers.postgres import PostgresServer

MIGRATIONS = Path(upgrade.__file__).parent / "migrations"


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    return made


SCRIPTS = list(reversed(list(ScriptDirectory.from_config(config()).walk_revisions())))
EARLIER = [script.revision for script in SCRIPTS[:-1]]


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Engine]:
    engine = create_database_engine(empty_database_url)
    yield engine
    engine.dispose()


def migrate(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, revision)


SHAPE = {
    SQLITE: "SELECT name, sql AS made FROM sqlite_master WHERE name != ''",
    POSTGRESQL: """
        SELECT table_name || '.' || column_name AS name, concat_ws(' ', data_type,
            character_maximum_length, is_nullable, column_default) AS made
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT 'trigger ' || tgname, pg_get_triggerdef(oid)
        FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'function ' || proname, prosrc
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """,
}


def shape(engine: Engine) -> dict[str, Any]:
    """All that the schema was made of, by its name."""
    with reader(engine).connect() as connection:
        rows = connection.execute(text(SHAPE[engine.dialect.name]))
        return {row.name: row.made for row in rows}


def differences(engine: Engine) -> list[Any]:
    with reader(engine).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, metadata))


def value_of(column: Any, table: str) -> Any:
    """Some value that the column holds; times and counts are small numbers."""
    kind = str(column["type"])
    if kind.startswith("VARCHAR"):
        return f"{table}.{column['name']}"[: column["type"].length]
    other = {"JSON": {"kept": True}, "BLOB": b"kept", "BYTEA": b"kept", "BOOLEAN": True}
    return other.get(kind, 7)


def value_of_id(table: str) -> str:
    """What `fill` has for the id of a row."""
    return f"{table}.id"[:24]


def fill(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Put a row into every table as it is at this revision; returns what is there."""
    with engine.begin() as connection:
        schema = inspect(connection)
        for table, _ in schema.get_sorted_table_and_fkc_names():  # first what others refer to
            if table in (None, "alembic_version", "audit_queue"):
                continue
            columns = {column["name"]: column for column in schema.get_columns(table)}
            values = {name: value_of(column, table) for name, column in columns.items()}
            for key in schema.get_foreign_keys(table):
                (name,), (referred,) = key["constrained_columns"], key["referred_columns"]
                there = {c["name"]: c for c in schema.get_columns(key["referred_table"])}
                values[name] = value_of(there[referred], key["referred_table"])
            present = TableClause(
                table, *(ColumnClause(name, column["type"]) for name, column in columns.items())
            )
            connection.execute(present.insert().values(values))
    engine.dispose()
    return content(engine)


def content(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    with reader(engine).connect() as connection:
        tables = set(inspect(connection).get_table_names()) - {"alembic_version", "audit_queue"}
        everything = {
            name: connection.execute(select(literal_column("*")).select_from(TableClause(name)))
            for name in tables
        }
        return {name: list(map(dict, rows.mappings())) for name, rows in everything.items()}


def test_the_models_and_the_migrated_schema_agree(engine: Engine) -> None:
    assert differences(engine) == []


@pytest.mark.parametrize("revision", EARLIER)
def test_an_earlier_schema_is_not_current(empty: Engine, revision: str) -> None:
    assert not is_current(empty)
    migrate(empty, revision)
    assert not is_current(empty)
    assert differences(empty) != []
    upgrade_database(empty)
    assert is_current(empty)
    assert differences(empty) == []


@pytest.mark.parametrize("revision", EARLIER)
def test_data_is_kept_from_every_earlier_schema(
    empty: Engine, engine: Engine, revision: str
) -> None:
    migrate(empty, revision)
    before = fill(empty)
    assert all(before.values())
    upgrade_database(empty)
    after = content(empty)
    for table, (row,) in before.items():
        (kept,) = after[table]
        assert {name: kept[name] for name in row} == row
    assert shape(empty).keys() == shape(engine).keys()  # indices and triggers too


@pytest.mark.parametrize("revision", EARLIER)
def test_a_trail_goes_on_from_every_earlier_schema(empty: Engine, revision: str) -> None:
    migrate(empty, revision)
    with empty.begin() as connection:
        for number in range(3):
            connection.execute(
                insert(audit_events).values(
                    id=f"event-{number}", at=number, action="leak.found", actor="x", data={}
                )
            )
        connection.execute(
            insert(audit_seals).values(
                sequence=1, event_id="event-0", previous_hash=audit.GENESIS, sealed_at=0,
                hash=audit._event_hash(
                    audit.GENESIS, 1,
                    dict(connection.execute(select(audit_events).limit(1)).mappings().one()),
                ),
            )
        )  # fmt: skip
        if inspect(connection).has_table("audit_queue"):
            connection.execute(delete(audit_queue).where(audit_queue.c.event_id == "event-0"))
    upgrade_database(empty)
    with empty.begin() as connection:
        audit.record(connection, AuditAction.LEAK_FOUND)
        assert audit.seal(connection) == 3
        order = list(
            connection.execute(
                select(audit_seals.c.event_id).order_by(audit_seals.c.sequence)
            ).scalars()
        )
        assert order[:3] == ["event-0", "event-1", "event-2"]
        found = audit.verify(connection)
    assert (found.sealed, found.unsealed, found.problems) == (4, 0, ())


def test_what_a_worker_of_the_version_before_writes_is_sealed_too(empty: Engine) -> None:
    """It was started before the upgrade, and knows nothing of a queue."""
    upgrade_database(empty)
    with empty.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_events (id, at, action, actor, data) "
                "VALUES ('old', 1, 'leak.found', 'x', '{}')"
            )
        )
        assert list(connection.execute(select(audit_queue.c.event_id)).scalars()) == ["old"]
        assert audit.seal(connection) == 1
        assert connection.execute(select(audit_queue)).all() == []


def test_work_from_before_the_retries_has_none(empty: Engine) -> None:
    migrate(empty, "0001")
    fill(empty)
    upgrade_database(empty)
    with reader(empty).connect() as connection:
        for table in (scans, outbox):
            row = connection.execute(select(table)).one()
            assert (row.attempts, row.retries) == (7, 0)


@pytest.mark.parametrize("revision", EARLIER)
def test_policies_from_before_other_stores_are_the_built_in_ones(
    empty: Engine, revision: str
) -> None:
    migrate(empty, revision)
    fill(empty)
    upgrade_database(empty)
    with empty.begin() as connection:
        row = connection.execute(select(policies)).one()
        assert (row.store, row.organisation_id) == (BUILT_IN, value_of_id("organisations"))
        # One of a service of its own needs no row of its own.
        acme = db_policies.Organisation("acme", "https://acme.example/" + "o" * 40, "Acme")
        db_policies.change(connection, acme, enabled=False, actor="ada")
        assert not db_policies.current_policy(connection, acme.store, acme.id).auto_revoke


def test_upgrading_twice_changes_nothing(engine: Engine) -> None:
    fill(engine)
    before, made = content(engine), shape(engine)
    upgrade_database(engine)
    upgrade_database(engine)
    assert (content(engine), shape(engine)) == (before, made)


def test_an_upgrade_that_fails_leaves_the_schema_as_it_was(empty: Engine) -> None:
    migrate(empty, EARLIER[-1])
    fill(empty)
    before, made = content(empty), shape(empty)
    with empty.begin() as connection:
        connection.execute(text("CREATE TABLE heartbeats (in_the_way INTEGER)"))
    with pytest.raises(Exception, match="already exists"):
        upgrade_database(empty)
    assert not is_current(empty)
    with empty.begin() as connection:
        connection.execute(text("DROP TABLE heartbeats"))
    assert (content(empty), shape(empty)) == (before, made)
    upgrade_database(empty)
    assert is_current(empty)


def test_processes_may_upgrade_at_once(
    empty: Engine, empty_database_url: str, engine: Engine, in_processes: Callable[..., list[str]]
) -> None:
    program = """
import sys
from scanner.db.dialect import POSTGRESQL, SQLITE
from scanner.db.engine import create_database_engine
from scanner.db.upgrade import is_current, upgrade_database
engine = create_database_engine(sys.argv[1])
begin()
upgrade_database(engine)
print(is_current(engine))
engine.dispose()
"""
    assert in_processes(program, 3, empty_database_url) == ["True\n"] * 3
    assert shape(empty) == shape(engine)


def test_a_database_of_a_newer_version_is_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = shape(engine)
    assert not is_current(engine)
    with pytest.raises(ConfigurationError, match=r"newer version \(migration 9999\)"):
        upgrade_database(engine)
    assert shape(engine) == before


def test_a_user_who_may_not_make_tables_is_one_sentence(postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE ROLE guest LOGIN")
    name = postgres_server.create_database()
    postgres_server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database=name)
    engine = create_database_engine(postgres_server.url(name, user="guest"))
    with pytest.raises(ConfigurationError, match=r"refuses its user \(permission denied for") as no:
        upgrade_database(engine)
    assert "\n" not in str(no.value)
    engine.dispose()
    postgres_server.drop_database(name)
    postgres_server.execute("DROP ROLE guest")


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "patrol.db").write_bytes(b"this is no database, and never was one " * 100)
    engine = create_database_engine(f"sqlite:///{tmp_path}/patrol.db")
    with pytest.raises(ConfigurationError, match="file is not a database"):
        upgrade_database(engine)
    with pytest.raises(ConfigurationError, match="restore a back-up"), upgrade.refuse_unreadable():
        is_current(engine)
