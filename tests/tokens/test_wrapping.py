"""The pepper is turned while tokens are looked up, issued and revoked; the turning is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import select, update

from scanner.db import chains
from scanner.db.engine import create_database_engine
from scanner.db.schema import digest_chains, tokens, unknown_digests
from scanner.errors import FinalError
from scanner.keyring import Key
from scanner.model import Secret, Validity
from scanner.stores.digests import Peppers
from scanner.stores.sql import SqlTokenStore
from scanner.stores.wrapping import wrap_digests

ROOT = Path(__file__).parents[2]
K1, K2, K3, ACME = (Key(name, name.encode() * 20) for name in ("k1", "k2", "k3", "acme"))


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program of this folder; what is left of them ends with the test."""
    with ExitStack() as running:

        def run(program: str, *arguments: object) -> subprocess.Popen[str]:
            process = running.enter_context(
                subprocess.Popen(
                    [sys.executable, Path(__file__).with_name(program), *map(str, arguments)],
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    text=True,
                )
            )  # fmt: skip
            running.callback(process.kill)
            return process

        yield run


def chains_of(desk) -> Counter[str]:
    return Counter(row["key_id"] for row in desk.rows(tokens))


def test_nobody_gets_a_wrong_answer_while_the_pepper_is_turned(
    desk, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    known = {}
    for number in range(360):
        secret, made = desk.create()
        if number % 3 == 0:
            desk.tokens.revoke(made["id"], actor="test")
        known[secret.reveal().decode()] = "revoked" if number % 3 == 0 else "active"
    for _ in range(30):
        desk.leak(desk.new_secret())
    file = tmp_path / "known.json"
    file.write_text(json.dumps(known))
    # One that has not turned yet goes on to issue under the old key.
    load = [start("load.py", desk.url, names, file) for names in ("k2,k1", "k1,k2")]
    for process in load:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for batches in (1, 1):
        wrapper = start("wrap.py", desk.url, "k2,k1")
        assert wrapper.stdout is not None
        for _ in range(batches):
            assert re.fullmatch(r"\d+ \d+\n", wrapper.stdout.readline())
        os.kill(wrapper.pid, signal.SIGKILL)
        wrapper.communicate()
        assert chains_of(desk).keys() >= {"k1", "k1>k2"}  # it was stopped half-way
    two = [start("wrap.py", desk.url, "k2,k1") for _ in range(2)]  # and by two operators at once
    for wrapper in two:
        out, _ = wrapper.communicate(timeout=120)
        assert wrapper.returncode == 0, out
    for process in load:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
        done = json.loads(out)
        assert min(done.values()) > 0, done
    store = SqlTokenStore(desk.engine, Peppers([K2, K1], [ACME]))
    asked = [Secret(text.encode()) for text in known]
    assert [found.validity.value for found in store.find(asked)] == list(known.values())
    assert chains_of(desk)["k1>k2"] >= 360
    assert desk.events("digests.wrap_started")
    assert desk.events("digests.wrapped")


def test_every_digest_is_wrapped_and_old_keys_are_told_apart(desk, new_secret) -> None:
    first, _ = desk.create()
    leaked = new_secret()
    desk.leak(leaked)
    desk.ring.keys = (K2, K1)
    second, _ = desk.create()
    done = wrap_digests(desk.engine, desk.peppers, actor="ops")
    assert (done.progress.tokens, done.newest, done.needed, done.free) == (1, "k2", ["k1"], [])
    assert chains_of(desk) == {"k1>k2": 1, "k2": 1}
    assert {row["key_id"] for row in desk.rows(unknown_digests)} == {
        "k1>k2", "sha256>k1>k2", "acme>k1>k2",
    }  # fmt: skip
    assert {row["key_id"] for row in desk.rows(digest_chains)} == {
        "k2", "k1>k2", "sha256>k1>k2", "acme>k1>k2",
    }  # fmt: skip
    assert [desk.validity(secret) for secret in (first, second)] == [Validity.ACTIVE] * 2
    desk.create(leaked)
    assert len(desk.incidents()) == 1
    again = wrap_digests(desk.engine, desk.peppers, actor="ops")
    assert (again.progress.tokens, again.progress.unknown) == (0, 0)
    assert len(desk.events("digests.wrapped")) == 1
    (started,) = desk.events("digests.wrap_started")
    assert started["data"] == {"key": "k2", "chains": ["acme>k1", "k1", "sha256>k1"]}


def test_wrapping_goes_on_over_many_keys(desk) -> None:
    secrets = []
    for keys in ((K1,), (K2, K1), (K3, K2, K1)):
        desk.ring.keys = keys
        secrets.append(desk.create()[0])
        wrap_digests(desk.engine, desk.peppers, actor="ops")
    assert chains_of(desk) == {"k1>k2>k3": 1, "k2>k3": 1, "k3": 1}
    assert [desk.validity(secret) for secret in secrets] == [Validity.ACTIVE] * 3


def test_a_key_that_no_digest_needs_is_free(desk, new_secret) -> None:
    desk.leak(new_secret())
    desk.ring.keys = (K2, K1)
    with desk.engine.begin() as connection:
        connection.execute(unknown_digests.delete())
    done = wrap_digests(desk.engine, desk.peppers, actor="ops")
    assert (done.needed, done.free) == ([], ["k1"])
    assert done.removed == ["acme>k1", "k1", "sha256>k1"]
    desk.ring.keys = (K2,)
    assert desk.validity(new_secret()) is Validity.NEVER_ISSUED


def test_a_chain_without_room_is_said_before_anything_is_changed(desk) -> None:
    _, made = desk.create()
    desk.create()
    long = ">".join(["k1"] * 1_365)
    name = chains.name_of(long)
    with desk.engine.begin() as connection:
        connection.execute(update(tokens).where(tokens.c.id == made["id"]).values(key_id=name))
        chains.add(connection, [long])
    desk.ring.keys = (K2, K1)
    with pytest.raises(FinalError, match="longer than 4096 characters"):
        wrap_digests(desk.engine, desk.peppers, actor="ops")
    assert chains_of(desk) == {name: 1, "k1": 1}


def test_a_digest_that_changed_meanwhile_is_left_alone(
    desk, new_secret: Callable[[], Secret]
) -> None:
    """Each row is wrapped only while it is as it was read: twice would be wrong for ever."""
    secret, _ = desk.create()
    desk.ring.keys = (K2, K1)
    other = create_database_engine(desk.url)
    seen = []

    def race(_: object) -> None:
        if not seen:
            seen.append(True)
            wrap_digests(other, desk.peppers, actor="other", batch=1)

    for _ in range(3):
        desk.create(new_secret())
    with desk.engine.begin() as connection:
        old = connection.execute(select(tokens.c.id).where(tokens.c.key_id == "k1")).scalars().all()
    assert len(old) == 1
    wrap_digests(desk.engine, desk.peppers, actor="ops", batch=1, report=race)
    other.dispose()
    assert desk.validity(secret) is Validity.ACTIVE
