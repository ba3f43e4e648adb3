"""The tasks and the clock that starts them: named, without arguments, each waking the next."""

from __future__ import annotations

import hashlib
import inspect
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from celery import Celery
from celery.backends.base import DisabledBackend
from kombu.exceptions import ContentDisallowed
from sqlalchemy import delete, func, select, update

from scanner.bootstrap import Services
from scanner.db.audit import record, verify
from scanner.db.engine import reader
from scanner.db.heartbeats import BEAT, ROUND, report
from scanner.db.lanes import Lane
from scanner.db.schema import heartbeats, incidents, outbox, scans, tokens, watches
from scanner.db.watches import add_watch
from scanner.deadline import Deadline
from scanner.embedded.git_server import GitServer
from scanner.matcher.mask import mask
from scanner.model import AuditAction
from scanner.patterns.generate import generate
from scanner.rounds import seal_all
from scanner.settings import load_settings
from scanner.slots import plan
from scanner.sources.github_push import Push
from scanner.stores.sql import ensure_owner
from scanner.tasks import BEAT_SILENT_MS, STAND_IN, Steps, register, stand_in_after
from scanner.worker import (
    DELIVER,
    QUEUES,
    RECHECK,
    RESPOND,
    SCAN,
    SCANS,
    SEAL,
    TICK,
    CeleryWaker,
    make_app,
)
from tests.databases import on_postgresql

ALL = {*SCANS.values(), RECHECK, RESPOND, DELIVER, TICK, SEAL}
HISTORY = SCANS[Lane.HISTORY]


class Room:
    """The worker's side, without a worker: tasks are called, and wakes are looked at."""

    def __init__(self, **values: Any) -> None:
        self.told: list[float] = []
        self.services = Services(load_settings(values))
        self.app: Celery = make_app(self.services.settings)
        self.steps = Steps(self.services, CeleryWaker(self.app), busy_until=self.told.append)
        register(self.app, self.services, CeleryWaker(self.app), self.steps)
        self.queue = Path(values["data_dir"]) / "broker" / "queue"

    def run(self, task: str) -> None:
        self.app.tasks[task]()

    def wakes(self) -> list[str]:
        """Take all wakes there are; returns the names of their tasks, oldest first."""
        taken = []
        for file in sorted(self.queue.iterdir()):
            taken.append(json.loads(file.read_bytes())["headers"]["task"])
            file.unlink()
        return taken

    def count(self, table: Any, *conditions: Any) -> int:
        with reader(self.services.database).connect() as connection:
            query = select(func.count()).select_from(table).where(*conditions)
            return connection.execute(query).scalar_one()

    def unsealed(self) -> int:
        with reader(self.services.database).connect() as connection:
            result = verify(connection)
        assert result.problems == ()
        return result.unsealed


@pytest.fixture
def build(tmp_path: Path, database_url: str) -> Iterator[Callable[..., Room]]:
    built: list[Room] = []

    def make(**values: Any) -> Room:
        built.append(Room(data_dir=tmp_path / "data", database_url=database_url, **values))
        return built[-1]

    yield make
    for room in built:
        room.services.inspector.close()
        room.services.engine.dispose()


@pytest.fixture
def room(build: Callable[..., Room]) -> Room:
    return build()


def push(services: Services, name: str = "acme/app", after: str = "a" * 40) -> str:
    body = hashlib.sha256(name.encode()).hexdigest()
    one = Push("default", body, name, "refs/heads/main", "0" * 40, after, False)
    return services.intake.accept(one, None)[0]


# What is registered.


def test_every_name_a_wake_can_carry_has_its_task(room: Room) -> None:
    ours = {name for name in room.app.tasks if not name.startswith("celery.")}
    assert ours == ALL
    assert all(name.startswith("patrol.") for name in ALL)
    assert len(ALL) == 9
    assert set(QUEUES) == ALL - {TICK, SEAL}  # beat does those itself
    routes = {name: route["queue"] for name, route in room.app.conf.task_routes.items()}
    assert routes == {name: name for name in QUEUES}


def test_no_task_takes_an_argument_or_keeps_a_result(room: Room) -> None:
    for name in ALL:
        task = room.app.tasks[name]
        assert not inspect.signature(task.run).parameters
        assert task.ignore_result
        assert task.run.__annotations__["return"] == "None"
        with pytest.raises(TypeError):
            task.apply_async(args=["a raw token"])  # refused before it is sent
    assert room.wakes() == []
    assert isinstance(room.app.backend, DisabledBackend)
    assert room.app.conf.result_backend is None


def test_messages_are_json_and_nothing_else(room: Room) -> None:
    conf = room.app.conf
    assert (conf.accept_content, conf.task_serializer) == (["json"], "json")
    with room.app.connection_for_write() as connection:
        queue = connection.SimpleQueue(RESPOND)
        queue.put({"x": 1}, serializer="pickle")
        message = queue.get_nowait()
        message.accept = set(conf.accept_content)
        with pytest.raises(ContentDisallowed):
            message.decode()
        message.ack()
        queue.close()


def test_a_worker_that_dies_gives_its_work_back_and_takes_one_wake_at_a_time(room: Room) -> None:
    conf = room.app.conf
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert conf.worker_prefetch_multiplier == 1
    assert not conf.worker_send_task_events
    assert not conf.worker_enable_remote_control


def test_beat_ticks_and_seals_every_second(room: Room) -> None:
    schedule = room.app.conf.beat_schedule
    assert {(entry["task"], entry["schedule"]) for entry in schedule.values()} == {
        (TICK, 1.0),
        (SEAL, 1.0),
    }
    for entry in schedule.values():
        assert "args" not in entry
    assert room.app.conf.beat_max_loop_interval <= 1


def test_beat_does_its_rounds_itself_with_no_broker(build: Callable[..., Room]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        room = build(broker_url=f"redis://127.0.0.1:{nobody.getsockname()[1]}/0")
        with room.services.database.begin() as connection:
            add_watch(connection, "https://github.com", "acme/app", 3_600, "test")
        beat = room.app.Beat(quiet=True).Service(
            app=room.app, scheduler_cls=room.app.conf.beat_scheduler
        )
        patience = Deadline(30)
        while not patience.is_over and (room.unsealed() or not room.count(scans)):
            threading.Event().wait(beat.scheduler.tick())  # as its own loop does
    assert room.count(scans, scans.c.source == "watch") == 1
    assert room.unsealed() == 0
    assert room.count(heartbeats, heartbeats.c.name.in_([BEAT, ROUND])) == 2


def test_a_step_says_until_when_it_may_be_busy(room: Room) -> None:
    before = monotonic()
    assert not room.steps.run(DELIVER)
    until, idle = room.told
    most = room.services.settings.task_seconds
    assert before + most <= until <= monotonic() + most
    assert idle == 0


def test_a_process_that_stops_begins_nothing(room: Room) -> None:
    push(room.services)
    room.steps.stop()
    assert not room.steps.run(SCAN)
    assert room.count(scans, scans.c.state == "pending", scans.c.fence == 0) == 1


def test_beat_s_round_is_done_by_others_when_it_is_silent(room: Room) -> None:
    with room.services.database.begin() as connection:
        add_watch(connection, "https://github.com", "acme/app", 3_600, "test")
    room.steps.report("worker:respond")  # a process that began just now gives beat time to come
    assert room.count(scans) == 0
    room.steps = Steps(room.services, CeleryWaker(room.app), stand_in_after=0)
    room.steps.report("worker:respond")
    assert room.count(scans, scans.c.source == "watch") == 1
    assert room.unsealed() == 0
    with room.services.database.begin() as connection:
        ages = dict(connection.execute(select(heartbeats.c.name, heartbeats.c.at)).all())
        assert {"worker:respond", ROUND, STAND_IN} <= ages.keys()
        assert BEAT not in ages  # which is as silent as it was
        connection.execute(update(watches).values(next_due=0))
        connection.execute(update(scans).values(state="done"))
    room.steps.report("worker:respond")  # the round was done a moment ago
    assert room.count(scans) == 1
    with room.services.database.begin() as connection:
        connection.execute(update(heartbeats).values(at=heartbeats.c.at - BEAT_SILENT_MS - 1))
    room.steps.report("worker:respond")
    assert room.count(scans) == 2


def test_who_revokes_never_does_beat_s_round(room: Room) -> None:
    with room.services.database.begin() as connection:
        add_watch(connection, "https://github.com", "acme/app", 3_600, "test")
    (respond,) = plan(["respond"], 2)
    ours = Steps(room.services, CeleryWaker(room.app), stand_in_after=stand_in_after(respond))
    ours.report("worker:respond")
    assert room.count(scans) == 0
    (deliver,) = plan(["deliver"], 2)
    assert stand_in_after(deliver) == BEAT_SILENT_MS / 1000


@on_postgresql  # SQLite has one writer: whoever hangs in a transaction there holds up all
def test_a_beat_that_hangs_holds_nobody_up(room: Room) -> None:
    """Its row may be locked for as long as the database bears it."""
    room.run(TICK)
    room.steps = Steps(room.services, CeleryWaker(room.app), stand_in_after=0)
    with room.services.database.begin() as connection:
        report(connection, BEAT)
        began = monotonic()
        room.steps.report("worker:deliver")
        assert monotonic() - began < 5  # not the 20 seconds that a lock is waited for


def test_a_duty_that_fails_stops_no_other_and_is_seen_as_silence(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    folder = room.services.settings.seal_ring.path.parent
    with room.services.database.begin() as connection:
        add_watch(connection, "https://github.com", "acme/app", 3_600, "test")
    (folder / ".seal_keys.lock").unlink(missing_ok=True)
    (folder / ".seal_keys.lock").mkdir()  # nothing can be written there under a lock
    for _ in range(3):
        room.run(TICK)
    assert room.count(scans, scans.c.source == "watch") == 1
    assert room.count(heartbeats, heartbeats.c.name == BEAT) == 0
    said = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert said == ["the day's seal keys failed"]
    (folder / ".seal_keys.lock").rmdir()
    room.run(TICK)
    assert room.count(heartbeats, heartbeats.c.name == BEAT) == 1


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_clock_that_was_set_keeps_nobody_from_the_round(room: Room, minutes: int) -> None:
    """Where the database's time is this machine's, all that was written is of another time."""
    room.run(TICK)
    with room.services.database.begin() as connection:
        add_watch(connection, "https://github.com", "acme/app", 3_600, "test")
        by = minutes * 60_000
        connection.execute(update(heartbeats).values(at=heartbeats.c.at - by))
    room.steps = Steps(room.services, CeleryWaker(room.app), stand_in_after=0)
    room.steps.report("worker:deliver")
    assert room.count(scans, scans.c.source == "watch") == 1


def test_beat_goes_by_a_clock_that_nobody_sets(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    beat = room.app.Beat(quiet=True).Service(
        app=room.app, scheduler_cls=room.app.conf.beat_scheduler
    )
    beat.scheduler.tick()
    rounds = room.count(heartbeats, heartbeats.c.name == BEAT)
    assert rounds == 1
    with room.services.database.begin() as connection:
        connection.execute(delete(heartbeats))
    now = room.app.now
    monkeypatch.setattr(room.app, "now", lambda: now() - timedelta(minutes=10))
    patience = Deadline(30)
    while not patience.is_over and not room.count(heartbeats, heartbeats.c.name == BEAT):
        threading.Event().wait(beat.scheduler.tick())
    assert room.count(heartbeats, heartbeats.c.name == BEAT) == 1


def test_what_is_less_urgent_has_its_turn(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker gives out revocations as long as there are any."""
    both = Steps(
        room.services, CeleryWaker(room.app), busy_until=room.told.append,
        turns=(RESPOND, RECHECK),
    )  # fmt: skip
    both.run(RESPOND)
    assert len(room.told) == 2  # one step: when it must end, and that it has
    monkeypatch.setattr("scanner.tasks._TURN_SECONDS", 0.0)
    both.run(RESPOND)
    assert len(room.told) == 6


# What they do.


def test_with_nothing_to_do_nobody_is_woken(room: Room) -> None:
    for name in sorted(ALL):
        room.run(name)
    assert room.wakes() == []


def test_a_tick_turns_a_due_watch_into_a_scan_once(room: Room) -> None:
    with room.services.database.begin() as connection:
        add_watch(connection, "https://github.com", "acme/app", 3_600, "test")
    room.run(TICK)
    assert room.wakes() == [HISTORY]
    assert room.count(scans, scans.c.source == "watch") == 1
    room.run(TICK)
    assert room.wakes() == [HISTORY]  # it still waits: a wake may have been lost
    assert room.count(scans) == 1
    with room.services.database.begin() as connection:
        connection.execute(update(watches).values(next_due=watches.c.next_due - 3_600_001))
        connection.execute(update(scans).values(state="done"))
    room.run(TICK)
    assert room.count(scans) == 2


def test_a_tick_finds_work_whose_wake_was_lost(room: Room) -> None:
    push(room.services)
    room.run(TICK)
    assert room.wakes() == [SCAN]
    with room.services.database.begin() as connection:
        connection.execute(update(scans).values(state="running", lease_until=2**60))
    room.run(TICK)
    assert room.wakes() == []  # somebody is at it
    with room.services.database.begin() as connection:
        connection.execute(update(scans).values(lease_until=1))
    room.run(TICK)
    assert room.wakes() == [SCAN]  # and is gone


def test_sealing_seals_all_there_is_however_much(room: Room) -> None:
    many = 1_001  # more than one round takes
    with room.services.database.begin() as connection:
        for number in range(many):
            record(connection, AuditAction.TOKEN_ISSUED, actor="test", number=number)
    assert room.unsealed() == many
    patience = Deadline(30)
    while room.unsealed() and not patience.is_over:  # a task takes half a second at most
        room.run(SEAL)
    assert room.unsealed() == 0
    assert seal_all(room.services) == 0


def test_each_step_wakes_the_next_until_the_owner_is_told(
    build: Callable[..., Room], git_server: GitServer, repository: Any, smtp_server: Any
) -> None:
    room = build(
        github_url=git_server.url,
        allow_hosts=git_server.address,
        smtp_url=f"smtp://127.0.0.1:{smtp_server.port}",
    )
    services = room.services
    pattern = next(p for p in services.matcher_ruleset.patterns if p.id == "azure-devops-pat")
    secret = generate(pattern)
    with services.database.begin() as connection:
        ensure_owner(connection, "Contoso", "Ada", "ada@contoso.example", None)
    token_id = services.store.issue(
        secret, organisation="Contoso", owner="Ada", name="ci", pattern=pattern.id,
        mask=mask(pattern, secret.reveal()), scopes=(), days=30, actor="test",
    )  # fmt: skip
    head = repository.commit({"config": secret.reveal()})
    repository.push()
    push(services, after=head)
    expected = {
        SCAN: ([RESPOND], incidents.c.state == "pending"),
        RESPOND: ([DELIVER], outbox.c.state == "pending"),
        DELIVER: ([], outbox.c.state == "done"),
    }
    for step, (woken, condition) in expected.items():
        room.run(step)
        assert room.wakes() == woken
        assert room.count(condition.left.table, condition) == 1
    assert room.count(tokens, tokens.c.id == token_id, tokens.c.state == "revoked") == 1
    (((recipient,), _),) = smtp_server.got
    assert recipient == "ada@contoso.example"
    for step in (*expected, SEAL):
        room.run(step)
    assert room.wakes() == []
    assert room.unsealed() == 0
    assert len(smtp_server.got) == 1
