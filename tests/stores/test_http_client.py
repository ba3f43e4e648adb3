"""How a service is asked: again when that may help, less when it fails, several at once, and safe
for threads and forks."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scanner.errors import StoreUnavailableError
from scanner.model import Secret, Validity
from scanner.stores.loop_thread import LoopThread
from tests.servers.token_service import hang_up, raw, slow, status
from tests.stores.conftest import until

NewSecret = Callable[[], Secret]
ROOT = Path(__file__).resolve().parents[2]
PASSING = [status(500), status(503), status(429), hang_up, raw(b"x", "text/html"), raw(b"{")]


@pytest.mark.parametrize("kind", ["rfc", "batch", "single"])
def test_what_may_pass_is_asked_again(world, new_secret: NewSecret, kind: str) -> None:
    secret = new_secret()
    world.service.issue(secret)
    store = world.open(kind, limits={"attempts": len(PASSING) + 1})
    world.service.faults = list(PASSING)
    assert store.find([secret])[0].validity is Validity.ACTIVE
    assert len(world.service.asked) == len(PASSING) + 1


@pytest.mark.parametrize("code", [301, 302, 307, 400, 401, 403, 404, 413, 422])
def test_what_will_not_pass_is_asked_once(world, new_secret: NewSecret, code: int) -> None:
    store = world.open("batch")
    world.service.faults = [status(code, Location="/v1/lookup")]
    with pytest.raises(StoreUnavailableError, match=f"HTTP {code}"):
        store.find([new_secret()])
    assert len(world.service.asked) == 1


def test_a_revocation_is_asked_again_too(world, new_secret: NewSecret) -> None:
    secret = new_secret()
    token_id = world.service.issue(secret)
    world.service.faults = [status(503), hang_up]
    assert world.open("batch").revoke(token_id, "incident-1") is True
    assert len(world.service.asked) == 4  # and confirmed


def test_retry_after_is_honoured(world, new_secret: NewSecret) -> None:
    store = world.open("rfc")
    world.service.faults = [status(429, Retry_After="1")]
    began = time.monotonic()
    assert store.find([new_secret()])[0].validity is Validity.INACTIVE
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_beyond_the_budget_ends_it_at_once(
    world, new_secret: NewSecret, code: int
) -> None:
    store = world.open("rfc", limits={"budget_seconds": 5})
    world.service.faults = [status(code, Retry_After="6")]
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=f"HTTP {code}"):
        store.find([new_secret()])
    assert time.monotonic() - began < 4
    assert len(world.service.asked) == 1


def test_after_failures_in_a_row_a_service_is_left_alone(world, new_secret: NewSecret) -> None:
    limits = {"attempts": 1, "failures": 3, "pause_seconds": 0.5}
    store = world.open("rfc", limits=limits)
    world.service.faults = [status(500)] * 3
    for _ in range(3):
        with pytest.raises(StoreUnavailableError, match="HTTP 500"):
            store.find([new_secret()])
    with pytest.raises(StoreUnavailableError, match=r"3 times in a row; .* 0\.5 seconds"):
        store.find([new_secret()])
    assert len(world.service.asked) == 3

    def works() -> bool:
        try:
            return bool(store.find([new_secret()]))
        except StoreUnavailableError:
            return False

    until(works)
    assert len(world.service.asked) == 4  # nothing was sent in vain
    world.service.faults = [status(500), status(500)]
    for _ in range(2):  # closed again: two failures are no three
        with pytest.raises(StoreUnavailableError, match="HTTP 500"):
            store.find([new_secret()])
    assert works()


def test_one_attempt_finds_out_whether_it_is_back(world, new_secret: NewSecret) -> None:
    store = world.open("rfc", limits={"attempts": 1, "failures": 1, "pause_seconds": 0.2})
    release = threading.Event()
    world.service.faults = [status(500), slow(release)]
    with pytest.raises(StoreUnavailableError):
        store.find([new_secret()])
    outcome: list[Any] = []

    def keep_asking() -> None:
        def ask() -> Any:
            try:
                return store.find([new_secret()])
            except StoreUnavailableError:
                return None

        outcome.append(until(ask))

    trial = threading.Thread(target=keep_asking)
    trial.start()
    until(lambda: len(world.service.asked) == 2)
    for _ in range(20):  # while it is out, nobody else is sent
        with pytest.raises(StoreUnavailableError, match="left alone"):
            store.find([new_secret()])
    assert len(world.service.asked) == 2
    release.set()
    trial.join(30)
    assert outcome[0][0].validity is Validity.INACTIVE
    assert store.find([new_secret()])


def test_a_trial_that_fails_or_is_cut_off_opens_it_again(world, new_secret: NewSecret) -> None:
    release = threading.Event()
    limits = {"attempts": 1, "failures": 1, "pause_seconds": 0.2, "budget_seconds": 0.3}
    store = world.open("rfc", limits=limits)
    world.service.faults = [status(500), slow(release), status(500)]
    seen = set()

    def works() -> bool:
        try:
            return bool(store.find([new_secret()]))
        except StoreUnavailableError as error:
            seen.add(str(error))
            return False

    until(works)
    release.set()
    assert len(world.service.asked) == 4  # three that failed, and one
    assert len(seen) == 3  # HTTP 500, cut off, left alone


def test_many_at_once_but_not_too_many(world, new_secret: NewSecret) -> None:
    store = world.open("rfc", limits={"parallel": 4})
    secrets = [new_secret() for _ in range(120)]
    known = {secret: world.service.issue(secret) for secret in secrets[::3]}
    gate = threading.Barrier(4)

    def together(call: Any) -> None:
        gate.wait(30)
        call.usual()

    world.service.faults = [together] * 4
    answers = store.find(secrets)
    assert [a.token and a.token.token_id for a in answers] == [known.get(s) for s in secrets]
    assert world.service.busiest == 4
    assert world.service.connections <= 4  # they are used again
    store.find(secrets)
    assert world.service.connections <= 4


def test_batches_are_as_large_as_the_service_takes(world, new_secret: NewSecret) -> None:
    secrets = [new_secret() for _ in range(103)]
    store = world.open("batch", find={"batch": 10})
    assert store.abilities.batch == 10
    assert len(store.find([*secrets, *secrets[:7]])) == 110  # equal ones are asked about once
    assert len(world.service.asked) == 12  # each request carries a control
    sent = [json.loads(asked.body)["tokens"] for asked in world.service.asked]
    assert sorted(len(tokens) for tokens in sent) == [5] + [10] * 11
    controls = {token for tokens in sent for token in tokens} - {
        secret.reveal().decode() for secret in secrets
    }
    assert len(controls) == 12


def test_a_failure_among_many_is_no_answer_about_one(world, new_secret: NewSecret) -> None:
    store = world.open("rfc", limits={"attempts": 1})
    world.service.faults = [status(500)]
    answers = [lookup.validity for lookup in store.find([new_secret() for _ in range(30)])]
    assert answers.count(Validity.STORE_UNAVAILABLE) == 1
    assert answers.count(Validity.INACTIVE) == 29


@pytest.mark.parametrize("kind", ["rfc", "batch"])
def test_more_tokens_than_a_slow_service_can_take(
    world, new_secret: NewSecret, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A push full of look-alikes must not hold a worker for ever; few at a time still get through,
    and the breaker does not take it for a failure."""
    limits = {"parallel": 1, "lookup_seconds": 2, "failures": 1, "pause_seconds": 300}
    store = world.open(kind, limits=limits, **({} if kind == "rfc" else {"find": {"batch": 2}}))
    release = threading.Event()
    world.service.faults = [slow(release)]
    secrets = [new_secret() for _ in range(50)]
    asking = threading.Timer(3, release.set)  # the service's slowness; nobody waits for it
    asking.start()
    answers = [lookup.validity for lookup in store.find(secrets)]
    assert len(world.service.asked) == 1
    asked = 1  # beside the control of a batch of two
    assert Validity.STORE_UNAVAILABLE not in answers[:asked]
    assert set(answers[asked:]) == {Validity.STORE_UNAVAILABLE}
    assert "limits.lookup_seconds" in caplog.text
    assert len(store.find(secrets[:3])) == 3
    asking.join()


def test_threads_share_a_store(world, new_secret: NewSecret) -> None:
    store = world.open("batch", limits={"parallel": 3})
    secrets = [new_secret() for _ in range(16)]
    ids = [world.service.issue(secret) for secret in secrets]
    found: dict[int, Any] = {}

    def ask(place: int) -> None:
        found[place] = store.find([secrets[place]])[0].token.token_id

    threads = [threading.Thread(target=ask, args=[place]) for place in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[place] for place in range(16)] == ids
    assert world.service.busiest <= 3


def test_a_closed_store_may_be_asked_again(world, new_secret: NewSecret) -> None:
    store = world.open("rfc")
    for _ in range(2):
        assert store.find([new_secret()])[0].validity is Validity.INACTIVE
        store.close()
        store.close()
    assert not any(thread.name == "store" for thread in threading.enumerate())


def test_the_thread_ends_with_its_owner() -> None:
    async def answer() -> int:
        return 42

    loop = LoopThread()
    assert loop.run(answer()) == 42
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "store")
    del loop
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


_FORKING = """
import os, sys, warnings
from pathlib import Path
from scanner.matcher.engine import Matcher
from scanner.model import Secret
from scanner.patterns.loader import load
from scanner.stores.http import open_http_store

warnings.simplefilter("ignore")  # from 3.12 on, a fork beside threads is a warning
store = open_http_store(Path(sys.argv[1]), Matcher(load()))
secret = Secret(sys.stdin.buffer.read())
print(store.find([secret])[0].validity, flush=True)
child = os.fork()
if child == 0:
    print(store.find([secret])[0].validity, flush=True)
    store.close()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print(store.find([secret])[0].validity)
"""


def test_a_worker_that_forks_after_the_first_question(world, new_secret: NewSecret) -> None:
    secret = new_secret()
    world.service.issue(secret)
    file = world.write(world.values("rfc"))
    done = subprocess.run(
        [sys.executable, "-c", _FORKING, str(file)],
        cwd=ROOT,
        input=secret.reveal(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == b""
    assert done.stdout.split() == [b"active", b"active", b"7", b"active"]
