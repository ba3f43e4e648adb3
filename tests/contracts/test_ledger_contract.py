"""What every `BlobLedger` owes: it knows what was committed, under its own ruleset, and no more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, insert, select, update

from scanner.cache.redis_ledger import RedisLedger
from scanner.db.engine import create_database_engine
from scanner.db.ledger import DatabaseLedger
from scanner.db.schema import audit_events, blob_ledger, outbox, repositories, scanned_heads
from scanner.keyring import Key
from scanner.ports import BlobLedger
from tests.servers.process import free_port
from tests.servers.redis import access_to

ONE, OTHER = "1" * 64, "2" * 64
DAY_MS = 86_400_000
A, B, C = ("a" * 40, "b" * 40, "c" * 64)


@dataclass
class Bench:
    ledger: BlobLedger
    engine: Engine

    def remember(self, *object_ids: str, ruleset: str = ONE) -> None:
        """As a scan does that ends well."""
        with self.engine.begin() as connection:
            self.ledger.remember(connection, ruleset, object_ids)
        self.ledger.publish(ruleset, object_ids)

    def known(self, *object_ids: str, ruleset: str = ONE) -> set[str]:
        return self.ledger.known(ruleset, object_ids)

    def rows(self) -> int:
        with self.engine.connect() as connection:
            return len(connection.execute(select(blob_ledger)).all())


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_database_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture(params=["alone", "behind redis", "behind a dead redis"])
def bench(request: pytest.FixtureRequest, engine: Engine) -> Bench:
    ledger: BlobLedger = DatabaseLedger(engine, keep_ms=DAY_MS, most_rows=10_000)
    if request.param != "alone":
        url = f"redis://127.0.0.1:{free_port()}"
        if request.param == "behind redis":
            url = request.getfixturevalue("redis_server").url()
        ledger = RedisLedger(ledger, access_to(url), [Key("k1", b"k" * 32)], timeout=5)
    return Bench(ledger, engine)


def test_what_was_committed_is_known(bench: Bench) -> None:
    assert bench.known(A, B, C) == set()
    bench.remember(A, C)
    assert bench.known(A, B, C) == {A, C}
    assert bench.known(B) == set()
    assert bench.known() == set()
    assert bench.known(A, A) == {A}


def test_another_ruleset_knows_nothing(bench: Bench) -> None:
    bench.remember(A)
    bench.remember(B, ruleset=OTHER)
    assert bench.known(A, B) == {A}
    assert bench.known(A, B, ruleset=OTHER) == {B}


def test_what_was_rolled_back_is_not_known(bench: Bench) -> None:
    class LostError(Exception):
        pass

    with suppress(LostError), bench.engine.begin() as connection:
        bench.ledger.remember(connection, ONE, [A])
        raise LostError
    assert bench.known(A) == set()


def test_nothing_is_known_before_the_commit(bench: Bench) -> None:
    with bench.engine.begin() as connection:
        bench.ledger.remember(connection, ONE, [A])
        assert bench.known(A) == set()
    assert bench.known(A) == {A}  # though nobody published it: killed after the commit


def test_remembering_again_changes_nothing(bench: Bench) -> None:
    for _ in range(3):
        bench.remember(A, A, B)
    bench.remember()
    assert (bench.known(A, B), bench.rows()) == ({A, B}, 2)


def test_many_at_once(bench: Bench) -> None:
    ids = [f"{number:040x}" for number in range(2_500)]
    bench.remember(*ids[::2])
    assert bench.known(*ids) == set(ids[::2])


def test_the_same_files_in_two_scans_at_once(bench: Bench) -> None:
    ids = [f"{number:040x}" for number in range(400)]
    gate = threading.Barrier(4)
    failed: list[BaseException] = []

    def run(order: list[str]) -> None:
        gate.wait(30)
        try:
            for _ in range(5):
                bench.remember(*order)
        except BaseException as error:  # noqa: BLE001 (told by the assertion)
            failed.append(error)

    orders = (ids, ids[::-1], ids[200:] + ids[:200], ids[::2] + ids[1::2])
    threads = [threading.Thread(target=run, args=[order]) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (bench.known(*ids), bench.rows()) == (set(ids), 400)


def head(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(insert(repositories).values(id="r", host="h", name="n", created_at=1))
        connection.execute(
            insert(scanned_heads).values(repository_id="r", ruleset=ONE, object_id=A, scanned_at=1)
        )


def test_a_false_entry_ends_all_of_them(bench: Bench) -> None:
    head(bench.engine)
    bench.remember(A, B)
    bench.remember(A, ruleset=OTHER)
    bench.ledger.distrust(A)
    assert bench.known(A, B) == bench.known(A, ruleset=OTHER) == set()
    with bench.engine.connect() as connection:
        assert connection.execute(select(scanned_heads)).all() == []
        (event,) = connection.execute(select(audit_events)).all()
        (alarm,) = connection.execute(select(outbox)).all()
    assert (event.action, event.data) == ("ledger.distrusted", {"object_id": A})
    assert (alarm.kind, alarm.notice["to"]) == ("alarm", None)
    bench.remember(B)  # and it goes on
    assert bench.known(A, B) == {B}


def test_a_second_false_entry_does_not_have_everything_read_again(bench: Bench) -> None:
    bench.ledger.distrust(A)
    head(bench.engine)
    bench.remember(B)
    bench.ledger.distrust(B)
    assert bench.known(B) == set()
    with bench.engine.connect() as connection:
        assert len(connection.execute(select(scanned_heads)).all()) == 1
        assert len(connection.execute(select(outbox)).all()) == 1
        assert len(connection.execute(select(audit_events)).all()) == 2


@pytest.mark.parametrize("order", [1, -1])
def test_it_may_be_distrusted_while_others_write(bench: Bench, order: int) -> None:
    ids = [f"{number:040x}" for number in range(300)]
    bench.remember(*ids)
    with bench.engine.begin() as connection:  # everything is old enough to be renewed
        connection.execute(update(blob_ledger).values(scanned_at=1))
    gate = threading.Barrier(2)
    failed: list[BaseException] = []

    def run(act: Callable[[], None]) -> None:
        gate.wait(30)
        try:
            act()
        except BaseException as error:  # noqa: BLE001 (told by the assertion)
            failed.append(error)

    acts = [lambda: bench.remember(*ids), lambda: bench.ledger.distrust(A)][::order]
    threads = [threading.Thread(target=run, args=[act]) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert bench.rows() in (0, 300)
