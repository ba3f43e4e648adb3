"""What is found to fit, PostgreSQL takes and gives back; what it refuses is found."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    delete,
)

from scanner.db import bulk
from scanner.db.engine import create_database_engine
from scanner.db.fitting import Misfit, misfits
from scanner.errors import FinalError

PROBE = MetaData()
probe = Table(
    "probe",
    PROBE,
    Column("id", Integer, primary_key=True),
    Column("name", String(5)),
    Column("long", String(2_000)),
    Column("count", Integer),
    Column("at", BigInteger),
    Column("is_on", Boolean),
    Column("raw", LargeBinary),
    Column("data", JSON),
    UniqueConstraint("long", "at"),
)

numbers = st.integers(-(1 << 63), (1 << 63) - 1) | st.sampled_from([0, 1, 1 << 31, -(1 << 31) - 1])
# A surrogate is no character: the driver writes none.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=7)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
).map(json.dumps)
anything = st.none() | numbers | texts | st.binary(max_size=7) | documents | st.floats()


@pytest.fixture
def sqlite_engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    PROBE.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def postgres(postgres_database: str) -> Iterator[Connection]:
    engine = create_database_engine(postgres_database)
    with engine.connect() as connection:
        PROBE.create_all(connection)
        yield connection
    engine.dispose()


def keep(engine: Engine, values: dict[str, Any]) -> list[Misfit]:
    """Write a row as SQLite takes it, whatever the columns' types; returns what is found of it."""
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join("?" for _ in values)
    with engine.begin() as connection:
        connection.execute(delete(probe))
        connection.exec_driver_sql(
            f"INSERT INTO probe (id, {names}) VALUES (1, {marks})",  # noqa: S608
            tuple(values.values()),
        )
        return list(misfits(connection, PROBE))


def is_taken(engine: Engine, postgres: Connection) -> bool:
    """Copy the row; what is taken must come back as it was."""
    with engine.connect() as connection:
        sent = list(bulk.read(connection, probe))
        attempt = postgres.begin_nested()
        try:
            bulk.write(postgres, probe, iter(sent))
            arrived = list(bulk.read(postgres, probe))
        except (FinalError, ValueError):
            return False
        finally:
            attempt.rollback()
    assert arrived == sent
    return True


MANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@MANY
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": anything, "long": anything, "count": anything, "at": anything,
            "is_on": st.none() | numbers, "raw": anything, "data": anything | documents,
        },
    ).filter(bool)
)  # fmt: skip
def test_what_fits_is_taken(
    sqlite_engine: Engine, postgres: Connection, values: dict[str, Any]
) -> None:
    if not keep(sqlite_engine, values):
        assert is_taken(sqlite_engine, postgres)


@MANY
@given(
    st.one_of(
        st.fixed_dictionaries({"name": texts}),
        st.fixed_dictionaries({"count": numbers}),
        st.fixed_dictionaries({"data": documents | texts}),
    )
)
def test_what_does_not_fit_is_refused(
    sqlite_engine: Engine, postgres: Connection, values: dict[str, Any]
) -> None:
    """The right kind of value, and yet too long, too large or malformed: we ask for no less."""
    found = keep(sqlite_engine, values)
    assert [one.row for one in found] == ["1"] * len(found)
    assert is_taken(sqlite_engine, postgres) == (not found)


@pytest.mark.parametrize(("characters", "fits"), [(670, True), (680, False)])
def test_a_key_fits_into_an_index_or_is_found(
    sqlite_engine: Engine, postgres: Connection, characters: int, fits: bool
) -> None:
    rng = random.Random(1)  # what does not compress
    value = "".join(chr(rng.randrange(0x10000, 0x20000)) for _ in range(characters))
    found = keep(sqlite_engine, {"long": value, "at": 1})
    assert (found == []) is fits
    assert is_taken(sqlite_engine, postgres) is fits


def test_all_that_is_wrong_with_a_row_is_found(sqlite_engine: Engine) -> None:
    found = keep(sqlite_engine, {"name": "a\0bcdefg", "count": "x", "data": "{"})
    assert [(one.column, one.reason) for one in found] == [
        ("name", "holds a NUL character"),
        ("count", "is not a whole number of 32 bits"),
        ("data", "is no JSON"),
    ]


def test_a_type_nobody_thought_of_stops_the_copy() -> None:
    strange = MetaData()
    table = Table("strange", strange, Column("id", Integer, primary_key=True), Column("f", Float))
    engine = create_engine("sqlite://")
    strange.create_all(engine)
    with engine.begin() as connection:
        connection.execute(table.insert().values(id=1, f=0.5))
        with pytest.raises(NotImplementedError, match="Float"):
            list(misfits(connection, strange))
    engine.dispose()


def test_the_driver_reads_text_as_before(sqlite_engine: Engine) -> None:
    keep(sqlite_engine, {"name": "é"})
    with sqlite_engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        before = driver.text_factory
        for _ in misfits(connection, PROBE):
            pass
        assert driver.text_factory is before
