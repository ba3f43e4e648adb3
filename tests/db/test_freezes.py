"""Freezes: one alarm, not a storm, and a release that wakes what waited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine, select, update

from notifier.notice import Notice
from scanner.db import freezes, incidents, leases, sealed
from scanner.db.clock import now_ms
from scanner.db.engine import reader
from scanner.db.leases import Patience
from scanner.db.schema import audit_events, outbox, sealed_candidates
from scanner.db.schema import incidents as table
from scanner.db.sealed import Cause, Waiting
from scanner.db.seals import Sealer
from scanner.keyring import Key
from scanner.model import LocatedCandidate, Lookup

PATIENCE = Patience(lease_ms=60_000, max_attempts=3, max_retries=None)
REASON = "The store built-in knows a token that was never issued."


def freeze(engine: Engine, store: str = "built-in") -> bool:
    with engine.begin() as connection:
        return freezes.freeze(connection, store, REASON)


def release(engine: Engine, store: str = "built-in") -> bool:
    with engine.begin() as connection:
        return freezes.release(connection, store, "ada")


def is_frozen(engine: Engine, store: str = "built-in") -> bool:
    with reader(engine).connect() as connection:
        return freezes.is_frozen(connection, store)


def rows(engine: Engine, what: Any) -> list[Any]:
    with reader(engine).connect() as connection:
        return list(connection.execute(select(what)))


def test_a_freeze_holds_until_it_is_released(engine: Engine) -> None:
    assert not is_frozen(engine)
    assert freeze(engine)
    assert is_frozen(engine)
    assert not is_frozen(engine, "another")
    assert release(engine)
    assert not is_frozen(engine)
    events = [(row.action, row.actor, row.data["store"]) for row in rows(engine, audit_events)]
    assert sorted(events) == [
        ("store.frozen", "patrol", "built-in"), ("store.released", "ada", "built-in"),
    ]  # fmt: skip


def test_the_alarm_says_what_happened_and_what_to_do(engine: Engine) -> None:
    freeze(engine)
    (row,) = rows(engine, outbox)
    assert (row.kind, row.incident_id, row.state) == ("alarm", None, "pending")
    assert row.notice["to"] is None  # the operator, set when sent
    sent = {"message_id": "<1@patrol.example>", "to": "operator@patrol.example"}
    notice = Notice.from_json({**row.notice, **sent})
    assert notice.context["explanation"] == REASON
    assert notice.context["what_to_do"].endswith("patrol policy set --release-store built-in")


def test_one_alarm_for_one_freeze(
    engine: Engine, connect: Callable[[], Engine], at_once: Callable[..., list[Any]]
) -> None:
    engines = [connect() for _ in range(4)]
    frozen = at_once(*(lambda worker=worker: freeze(worker) for worker in engines))
    assert sorted(frozen) == [False, False, False, True]
    assert not freeze(engine)
    assert len(rows(engine, outbox)) == len(rows(engine, audit_events)) == 1


def test_the_next_freeze_alarms_again(engine: Engine) -> None:
    freeze(engine)
    with reader(engine).connect() as connection:
        then = now_ms(connection)
    release(engine)
    with reader(engine).connect() as connection:
        while now_ms(connection) == then:  # the alarm's key holds the time
            pass
    assert freeze(engine)
    assert len(rows(engine, outbox)) == 2


def test_nothing_is_released_that_was_not_frozen(engine: Engine) -> None:
    freeze(engine, "another")
    assert not release(engine)
    assert is_frozen(engine, "another")
    assert [row.action for row in rows(engine, audit_events)] == ["store.frozen"]


@pytest.fixture
def waiting(
    engine: Engine,
    known: Callable[..., Lookup],
    add_scan: Callable[..., dict[str, Any]],
    seen_at: Callable[..., LocatedCandidate],
) -> None:
    """Incidents and sealed tokens of two stores that were put off for an hour."""
    sealer = Sealer([Key("s1", Fernet.generate_key())])
    with engine.begin() as connection:
        for number, store in enumerate(("built-in", "built-in", "another"), 1):
            scan = add_scan(connection, body=str(number))
            incidents.open_incident(connection, known(number, store=store), scan["id"])
            found = seen_at(number)
            sealed.hold(
                connection, scan["id"], [Waiting(found.candidate.secret, (found,))], store=store,
                cause=Cause.STORE_UNAVAILABLE, sealer=sealer, key=Key("f1", b"k" * 32), keep_ms=9,
            )  # fmt: skip
        for work in (table, sealed_candidates):
            claims, _ = leases.claim(connection, work, PATIENCE, limit=9, suspect=False)
            for held in claims:
                leases.release(connection, work, held, REASON, PATIENCE)
            connection.execute(update(work).values(available_at=now_ms(connection) + 3_600_000))
        ended = table.c.token_id == "t-2"
        connection.execute(update(table).where(ended).values(state=leases.DONE))


@pytest.mark.usefixtures("waiting")
def test_a_release_wakes_what_waited(engine: Engine) -> None:
    freeze(engine)
    release(engine)
    with reader(engine).connect() as connection:
        now = now_ms(connection)
    woken = {row.token_id for row in rows(engine, table) if row.available_at <= now}
    assert woken == {"t-1"}  # not what is done, nor what waits for another store
    for row in rows(engine, sealed_candidates):
        assert (row.available_at <= now) is (row.store == "built-in")
