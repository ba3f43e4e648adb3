"""The chaos run's short form; and that what it looks for, it finds."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, update

from scanner.db.dialect import SQLITE
from scanner.db.schema import audit_events, incidents, outbox, tokens
from tests.chaos import verdict
from tests.chaos.deliveries import Deliveries
from tests.chaos.stream import Planted, Stream
from tests.chaos.verdict import Verdict
from tests.chaos.world import BUILTIN, World
from tests.servers.present import needs

ROOT = Path(__file__).parents[2]
LEAKS, SECONDS = 6, 60.0


def run(faults: int, *words: str) -> str:
    """Run it with the same seed every time; returns what it says. `make chaos` tries others."""
    fixed = (f"--faults={faults}", "--leaks=40", "--seed=9")
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.run", *fixed, *words],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_redis_that_is_gone_flushed_full_or_hangs_changes_no_outcome() -> None:
    needs("postgresql")
    needs("redis-server")
    said = run(4, "--only=Redis")
    assert {"Redis gone", "Redis FLUSHALL", "Redis full", "Redis hangs"} <= rows(said)


def test_an_http_store_that_fails_in_every_way_changes_no_outcome() -> None:
    needs("postgresql")
    needs("redis-server")
    assert len(rows(run(5, "--store=http", "--only=HTTP store"))) == 6


def test_clocks_that_are_ten_minutes_wrong_change_no_outcome() -> None:
    needs("tcc")
    said = run(3, "--database=sqlite", "--only=clocks", "--only=everything")
    wrong = {"clocks 10 minutes fast", "clocks 10 minutes slow", "kill -9 everything at once"}
    assert wrong <= rows(said)


def rows(said: str) -> set[str]:
    """The names of the table's rows."""
    (table,) = re.findall(r"^fault .*?\n-+\n(.*?)\n-+\n", said, re.DOTALL | re.MULTILINE)
    return {row[:36].strip() for row in table.splitlines()} | {"all"}


@dataclass
class Ended:
    """An installation at rest, and what had leaked."""

    world: World
    planted: list[Planted]

    def look(self) -> Verdict:
        return verdict.look(self.world, self.planted)

    @property
    def leaked(self) -> Planted:
        """One that was to be revoked."""
        return next(one for one in self.planted if one.has_leaked and one.organisation == "Contoso")


@pytest.fixture(scope="module")
def ended() -> Iterator[Ended]:
    with World(SQLITE, BUILTIN) as world:
        hook = world.services.settings.all_hooks[0].secrets[0].get_secret_value()
        with Deliveries(world.url, hook, random.Random(1)) as deliveries:
            root = world.folder / "served"
            stream = Stream(world.services, world.issuer, root, deliveries, LEAKS, random.Random(1))
            ended = Ended(world, stream.planted)
            with stream:
                stream.leak(LEAKS, 0, 1)
                assert world.until("the pushes", lambda: stream.is_idle, SECONDS)
                stream.heal()
                world.until("rest", lambda: ended.look().is_good, SECONDS)
        for program in world.programs.values():
            assert program.stop(SECONDS)
        yield ended


def test_all_is_well_without_faults(ended: Ended) -> None:
    assert ended.look() == Verdict(events=ended.look().events)
    assert ended.look().events > LEAKS
    assert verdict.search(ended.world, ended.planted, lambda _: None) == []


Break = Callable[[Ended, Connection], None]


def _no_revocation(ended: Ended, connection: Connection) -> None:
    mine = tokens.c.id == ended.leaked.token_id
    connection.execute(update(tokens).where(mine).values(state="active", revoked_by=None))


def _no_incident(ended: Ended, connection: Connection) -> None:
    mine = incidents.c.token_id == ended.leaked.token_id
    connection.execute(update(incidents).where(mine).values(token_id="another"))


def _stranger_revoked(ended: Ended, connection: Connection) -> None:
    spared = next(one.token_id for one in ended.planted if not one.has_leaked)
    connection.execute(update(tokens).where(tokens.c.id == spared).values(state="revoked"))


def _told_in_vain(ended: Ended, _connection: Connection) -> None:
    ended.world.mailbox.mails.pop()


def _told_three_times(ended: Ended, _connection: Connection) -> None:
    ended.world.mailbox.mails += [ended.world.mailbox.mails[-1]] * 2


def _not_told(_ended: Ended, connection: Connection) -> None:
    connection.execute(delete(outbox).where(outbox.c.kind == "leak"))


def _left_undone(_ended: Ended, connection: Connection) -> None:
    connection.execute(update(incidents).values(state="pending"))


def _trail_is_short(ended: Ended, connection: Connection) -> None:
    """Who can change the schema can do this; who cannot is refused by the database."""
    connection.exec_driver_sql("DROP TRIGGER audit_events_no_delete")
    mine = audit_events.c.token_id == ended.leaked.token_id
    connection.execute(delete(audit_events).where(mine))


@pytest.mark.parametrize(
    ("break_it", "parts"),
    [
        (_no_revocation, {"lost"}),
        (_no_incident, {"lost"}),
        (_stranger_revoked, {"wrongly"}),
        (_told_in_vain, {"mails"}),
        (_told_three_times, {"mails"}),
        (_not_told, {"mails"}),
        (_left_undone, {"unfinished"}),
        (_trail_is_short, {"audit", "twice"}),
    ],
)
def test_what_is_wrong_is_found(ended: Ended, break_it: Break, parts: set[str]) -> None:
    box = ended.world.mailbox
    mails = list(box.mails)
    with ended.world.services.engine.begin() as connection:
        break_it(ended, connection)
        found = verdict.judge(connection, ended.world, ended.planted)
        connection.rollback()
    box.mails = mails
    assert not found.is_good
    assert {name for name, wrong in vars(found).items() if wrong and name != "events"} == parts


def test_a_token_that_was_left_somewhere_is_found(ended: Ended) -> None:
    place = ended.world.logs / "left.log"
    place.write_text(f"fetching https://{ended.leaked.secret}@git.example/\n")
    found = verdict.search(ended.world, ended.planted, lambda _: None)
    place.unlink()
    assert len(found) > 0
    assert all("logs/left.log" in what for what in found)
