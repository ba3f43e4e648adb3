"""Probes: alive without a database, ready only when what is accepted will be done, and why not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy import event as hooks

from scanner.db import freezes, heartbeats
from scanner.db.clock import now_ms
from scanner.db.schema import digest_chains, key_checks, scans
from scanner.db.schema import heartbeats as beats


@pytest.fixture
def grown(serve) -> Iterator[Any]:
    """A site that has no grace left."""
    with serve(ready_grace_seconds=0) as site:
        for name in (heartbeats.ROUND, heartbeats.BEAT):
            write(site, lambda connection, name=name: heartbeats.report(connection, name))
        yield site


def write(site, *changes: Any) -> None:
    with site.services.engine.begin() as connection:
        for change in changes:
            if callable(change):
                change(connection)
            else:
                connection.execute(change)


def age(site, name: str, seconds: float) -> None:
    """Let a heartbeat be that old."""

    def change(connection: Any) -> None:
        heartbeats.report(connection, name)
        then = now_ms(connection) - round(seconds * 1000)
        connection.execute(update(beats).where(beats.c.name == name).values(at=then))

    write(site, change)


def test_a_fresh_site_is_ready_though_nobody_works_yet(site) -> None:
    said = site.readiness()
    assert said == {"status": "ready", "reasons": [], "notes": []}


def test_a_schema_of_another_version(grown) -> None:
    grown.readiness()
    version = "UPDATE alembic_version SET version_num = '%s'"
    newest = head_revision(grown.services.engine)
    for revision in ("0001", "9999"):
        write(grown, lambda c, r=revision: c.exec_driver_sql(version % r))
        said = grown.readiness("schema")
        assert "patrol db upgrade" in said["reasons"][0]["message"]
    write(grown, lambda c: c.exec_driver_sql(version % newest))
    grown.readiness()


def head_revision(engine: Any) -> str:
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version")
        return str(found.scalar_one())


@pytest.mark.parametrize("purpose", ["pepper", "fingerprint", "seal"])
def test_a_key_that_is_not_this_databases(grown, purpose: str) -> None:
    grown.readiness()
    ours = key_checks.c.purpose == purpose
    with grown.services.engine.connect() as connection:
        (row,) = connection.execute(key_checks.select().where(ours)).mappings()
    write(grown, update(key_checks).where(ours).values(value="0" * 64))
    said = grown.readiness("keys")
    assert row["key_id"] not in json.dumps(said)
    write(grown, update(key_checks).where(ours).values(value=row["value"]))
    grown.readiness()
    # All of the ring's keys are new: wrong, but for seals, whose keys are destroyed in time.
    write(grown, update(key_checks).where(ours).values(key_id="another"))
    grown.readiness(*([] if purpose == "seal" else ["keys"]))


def test_a_pepper_that_tokens_were_digested_with_and_we_lack(grown) -> None:
    grown.readiness()
    write(grown, insert(digest_chains).values(key_id="k1>k9", created_at=0))
    grown.readiness("keys")
    write(grown, delete(digest_chains).where(digest_chains.c.key_id == "k1>k9"))
    grown.readiness()


def test_work_that_nobody_takes(grown, event: Callable[..., bytes]) -> None:
    assert grown.deliver(event()).status_code == 202
    grown.readiness()

    def put_off(connection: Any, seconds: float) -> None:
        then = now_ms(connection) - round(seconds * 1000)
        connection.execute(update(scans).values(available_at=then))

    write(grown, lambda c: put_off(c, 121))
    grown.readiness("lag")
    write(grown, lambda c: put_off(c, -3600))  # it waits on purpose
    grown.readiness()
    # Taken by a worker that is gone: it could be taken again since its lease ended.
    write(grown, lambda c: c.execute(update(scans).values(state="running", lease_until=1)))
    grown.readiness("lag")
    write(grown, lambda c: c.execute(update(scans).values(lease_until=now_ms(c) + 60_000)))
    grown.readiness()
    write(grown, lambda c: c.execute(update(scans).values(state="done", lease_until=None)))
    grown.readiness()


def test_silence_of_beat_and_workers(grown) -> None:
    grown.readiness()  # no worker has ever reported: beat's own report proves one
    age(grown, heartbeats.ROUND, 31)
    grown.readiness("beat")
    age(grown, "worker:default", 31)
    grown.readiness("beat", "worker")
    age(grown, "worker:reports", 1)  # one is enough
    grown.readiness("beat")
    age(grown, heartbeats.ROUND, 1)
    grown.readiness()
    write(grown, delete(beats))
    grown.readiness("beat")


def test_a_beat_that_is_silent_is_told_though_others_do_its_round(grown) -> None:
    assert grown.readiness()["notes"] == []
    age(grown, heartbeats.BEAT, 31)
    deadline = time.monotonic() + 30
    while not (said := grown.readiness())["notes"]:
        assert time.monotonic() < deadline
    assert [note["code"] for note in said["notes"]] == ["beat"]
    age(grown, heartbeats.ROUND, 31)
    assert grown.readiness("beat")["notes"] == []


def test_a_disk_without_room(serve) -> None:
    with serve(min_free_bytes=1 << 60) as site:
        site.readiness("disk")


def test_a_frozen_store_is_told_and_stops_nothing(grown) -> None:
    write(grown, lambda c: freezes.freeze(c, "built-in", "it lied about hush-hush"))
    deadline = time.monotonic() + 30
    while not (said := grown.readiness())["notes"]:
        assert time.monotonic() < deadline
    assert [note["code"] for note in said["notes"]] == ["frozen"]
    assert "hush" not in json.dumps(said)


def test_in_its_grace_only_what_never_passes_by_itself_counts(serve) -> None:
    with serve(ready_grace_seconds=3600) as site:
        age(site, heartbeats.BEAT, 3600)
        age(site, "worker", 3600)
        site.readiness()
        write(site, update(key_checks).values(value="0" * 64))
        site.readiness("keys")


def test_a_storm_of_probes_is_one_look_a_second(site) -> None:
    looks: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("SELECT alembic_version"):
            looks.append(statement)

    hooks.listen(site.services.engine, "before_cursor_execute", count)
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: site.get("/readyz"), range(200)))
        seconds = time.monotonic() - began
    finally:
        hooks.remove(site.services.engine, "before_cursor_execute", count)
    assert {answer.status_code for answer in answers} == {200}
    assert 1 <= len(looks) <= seconds + 1
