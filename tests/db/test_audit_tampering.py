"""What an intruder who owns the database may do to the audit trail, and how it shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, select, text
from sqlalchemy.exc import DatabaseError

from scanner.db import audit
from scanner.db.dialect import POSTGRESQL, SQLITE
from scanner.db.engine import reader
from scanner.db.schema import audit_seals
from scanner.model import AuditAction
from tests.databases import drop_guards


@pytest.fixture
def intruder(database_url: str) -> Iterator[Connection]:
    """Somebody's own way into the database, with none of our rules."""
    engine = create_engine(database_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture(autouse=True)
def trail(engine: Engine) -> None:
    """Six events, five of them sealed."""
    for count in (5, 1):
        with engine.begin() as connection:
            audit.seal(connection)
            for number in range(count):
                audit.record(connection, AuditAction.LEAK_FOUND, actor="ada", number=number)


def verify(engine: Engine) -> audit.Verification:
    with reader(engine).connect() as connection:
        return audit.verify(connection)


AGAIN = (
    "audit_events SELECT id, 0, action, actor, organisation_id, incident_id, token_id, "
    "correlation_id, data FROM audit_events"
)
CHANGE, REMOVE = "UPDATE audit_events SET actor = 'x'", "DELETE FROM audit_events"


@pytest.mark.parametrize(
    ("databases", "deed"),
    [
        (SQLITE, CHANGE),
        (SQLITE, REMOVE),
        (SQLITE, f"REPLACE INTO {AGAIN}"),
        (POSTGRESQL, CHANGE),
        (POSTGRESQL, REMOVE),
        (POSTGRESQL, f"INSERT INTO {AGAIN} ON CONFLICT (id) DO UPDATE SET at = 0"),
        (POSTGRESQL, "TRUNCATE audit_events"),
    ],
    indirect=["databases"],
)
def test_the_database_refuses_to_change_an_event(
    engine: Engine, intruder: Connection, deed: str
) -> None:
    with pytest.raises(DatabaseError, match="audit events are immutable"):
        intruder.execute(text(deed))
    intruder.rollback()
    found = verify(engine)
    assert (found.sealed, found.unsealed, found.problems) == (5, 1, ())


# What is done, and what `verify` says of it.
TAMPERING = {
    "changed": (
        ["UPDATE audit_events SET actor = 'nobody' WHERE id = :third"],
        ["the event of seal 3 was changed"],
    ),
    "changed in what it tells": (
        ["UPDATE audit_events SET data = '{}' WHERE id = :third"],
        ["the event of seal 3 was changed"],
    ),
    "backdated": (
        ["UPDATE audit_events SET at = at - 1 WHERE id = :third"],
        ["the event of seal 3 was changed"],
    ),
    "removed": (
        ["DELETE FROM audit_events WHERE id = :third"],
        ["the event of seal 3 was removed"],
    ),
    "removed with its seal": (
        [
            "DELETE FROM audit_events WHERE id = :third",
            "DELETE FROM audit_seals WHERE event_id = :third",
        ],
        ["seal 3 is missing before seal 4", "seal 4 does not follow the seal before it"],
    ),
    "removed, the rest moved up": (
        [
            "DELETE FROM audit_events WHERE id = :third",
            "DELETE FROM audit_seals WHERE event_id = :third",
            "UPDATE audit_seals SET sequence = sequence - 1 WHERE sequence > 3",
        ],
        [
            "seal 3 does not follow the seal before it",
            "the event of seal 3 was changed",
            "the event of seal 4 was changed",
        ],
    ),
    "the first ones removed": (
        [
            "DELETE FROM audit_events WHERE id IN (SELECT event_id FROM audit_seals "
            "WHERE sequence < 3)",
            "DELETE FROM audit_seals WHERE sequence < 3",
        ],
        ["seal 1 is missing before seal 3", "seal 3 does not follow the seal before it"],
    ),
    "reordered": (
        [
            "UPDATE audit_seals SET event_id = 'x' WHERE sequence = 3",
            "UPDATE audit_seals SET event_id = :third WHERE sequence = 4",
            "UPDATE audit_seals SET event_id = :fourth WHERE sequence = 3",
        ],
        ["the event of seal 3 was changed", "the event of seal 4 was changed"],
    ),
    "truncated in the middle": (
        ["DELETE FROM audit_seals WHERE sequence IN (3, 4)"],
        [
            "seal 3 is missing before seal 5",
            "seal 5 does not follow the seal before it",
            "2 events have no seal and wait for none",
        ],
    ),
    "truncated at its end": (
        ["DELETE FROM audit_seals WHERE sequence > 3"],
        ["2 events have no seal and wait for none"],
    ),
    "removed before it was sealed": (
        ["DELETE FROM audit_events WHERE id NOT IN (SELECT event_id FROM audit_seals)"],
        ["1 events were removed before they were sealed"],
    ),
    "kept from its seal": (
        ["DELETE FROM audit_queue"],
        ["1 events have no seal and wait for none"],
    ),
    "a seal of its own": (
        ["UPDATE audit_seals SET hash = previous_hash WHERE sequence = 3"],
        ["the event of seal 3 was changed", "seal 4 does not follow the seal before it"],
    ),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering_shows(engine: Engine, intruder: Connection, how: str) -> None:
    with reader(engine).connect() as connection:
        rows = connection.execute(select(audit_seals).order_by(audit_seals.c.sequence)).all()
    drop_guards(intruder)
    deeds, problems = TAMPERING[how]
    for deed in deeds:
        intruder.execute(text(deed), {"third": rows[2].event_id, "fourth": rows[3].event_id})
    intruder.commit()
    assert list(verify(engine).problems) == problems


def test_a_tail_that_is_gone_without_a_trace_shows_in_the_head(
    engine: Engine, intruder: Connection
) -> None:
    noted = verify(engine).head
    drop_guards(intruder)
    for deed in (
        "DELETE FROM audit_events WHERE id IN "
        "(SELECT event_id FROM audit_seals WHERE sequence > 3)",
        "DELETE FROM audit_seals WHERE sequence > 3",
    ):
        intruder.execute(text(deed))
    intruder.commit()
    found = verify(engine)
    assert (found.sealed, found.problems) == (3, ())
    assert found.head != noted
