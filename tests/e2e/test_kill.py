"""kill -9 between any two steps: one revocation, one mail, one audit trail."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from scanner.db import audit
from scanner.db.engine import reader
from scanner.db.schema import audit_events, incidents, outbox, scans, sightings, tokens
from scanner.sources.github_push import Push

ZEROS = "0" * 40
SCRIPT = Path(__file__).with_name("killed.py")
ONCE = ["leak.found", "notice.delivered", "revocation.decided", "token.revoked"]


@pytest.fixture(scope="module")
def quiet(build_house: Any, wait: Any) -> Any:
    """An installation of which only the mailbox runs: each test does the work, and dies of it."""
    house = build_house()
    house.start("mail")
    wait("the mailbox", lambda: "ok    mail server" in house.patrol("doctor").stdout)
    return house


class Worker:
    """Does a house's work in processes that can be told where to die."""

    def __init__(self, house: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            env=house.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _ask(self, line: str) -> tuple[int, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        code, commits = self._process.stdout.readline().split()
        return int(code), commits

    def work(self) -> int:
        """Do everything there is to do; returns how many commits that took."""
        code, commits = self._ask("0 after\n")
        assert code == 0
        return int(commits)

    def dies(self, number: int, moment: str = "after") -> bool:
        """Work until killed at that commit."""
        return self._ask(f"{number} {moment}\n")[0] == -signal.SIGKILL

    def close(self) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


@pytest.fixture
def worker(quiet: Any) -> Iterator[Worker]:
    built = Worker(quiet)
    yield built
    built.close()


def leak(house: Any, name: str) -> str:
    """Push a fresh token and store the push, as the web process does; returns the token's id."""
    token, token_id = house.issue()
    repository = house.repository(f"acme/{name}")
    after = repository.commit({"key.txt": f"key = {token}\n"})
    repository.push()
    push = Push("default", f"digest-{name}", f"acme/{name}", "refs/heads/main", ZEROS, after, False)
    house.services.intake.accept(push, None)
    return token_id


def pass_time(house: Any) -> None:
    """Let every lease and every pause end, as minutes would."""
    with house.services.database.begin() as connection:
        for table in (scans, incidents, outbox):
            connection.execute(
                update(table).where(table.c.state == "running").values(lease_until=0)
            )
            connection.execute(
                update(table).where(table.c.state == "pending").values(available_at=0)
            )


def problems(house: Any, token_id: str, *, mails_most: int) -> list[str]:
    """What is wrong with the outcome of one leak."""
    found = []
    (token,) = house.rows(select(tokens).where(tokens.c.id == token_id))
    rows = house.rows(select(incidents).where(incidents.c.token_id == token_id))
    if len(rows) != 1:
        return [f"{len(rows)} incidents"]
    incident = rows[0]
    if (token["state"], token["revoked_by"]) != ("revoked", incident["id"]):
        found.append(f"the token is {token['state']} by {token['revoked_by']}")
    if (incident["phase"], incident["state"]) != ("revoked", "done"):
        found.append(f"the incident is {incident['phase']}, {incident['state']}")
    places = house.rows(select(sightings.c.id).where(sightings.c.incident_id == incident["id"]))
    if len(places) != 1:
        found.append(f"{len(places)} sightings")
    events = house.rows(
        select(audit_events.c.action).where(audit_events.c.incident_id == incident["id"])
    )
    if sorted(event["action"] for event in events) != ONCE:
        found.append(f"audit {sorted(event['action'] for event in events)}")
    mails: list[EmailMessage] = house.mails(incident["id"])
    if not 1 <= len(mails) <= mails_most or len({mail["Message-ID"] for mail in mails}) != 1:
        found.append(f"{len(mails)} mails")
    return found


def verification(house: Any) -> audit.Verification:
    with reader(house.services.database).connect() as connection:
        return audit.verify(connection)


def test_killed_at_every_commit(quiet: Any, worker: Worker) -> None:
    leak(quiet, "dry")
    commits = worker.work()
    assert commits >= 9  # claim, fetched, matched, verdict, claim, intent, act, record, claim, sent
    wrong: dict[str, list[str]] = {}
    died = Counter[bool]()
    for number in range(1, commits + 1):
        for moment in ("before", "after"):
            name = f"{moment}-{number}"
            token_id = leak(quiet, name)
            died[worker.dies(number, moment)] += 1
            pass_time(quiet)
            worker.work()
            # Killed between the mail server's yes and our commit, a mail may come twice, under
            # one Message-ID. At every other point it comes once.
            wrong[name] = problems(quiet, token_id, mails_most=2)
    assert {name: found for name, found in wrong.items() if found} == {}
    assert died == {True: 2 * commits}
    ids = [row["id"] for row in quiet.rows(select(incidents.c.id))]
    twice = [incident for incident in ids if len(quiet.mails(incident)) > 1]
    assert len(twice) <= 1
    trail = verification(quiet)
    assert (trail.problems, trail.unsealed) == ((), 0)


def test_a_push_that_always_kills_its_worker_is_parked_and_its_neighbours_go_on(
    quiet: Any, worker: Worker
) -> None:
    poison = leak(quiet, "poison")
    for _ in range(quiet.services.settings.max_attempts):
        assert worker.dies(2)
        pass_time(quiet)
    neighbour = leak(quiet, "neighbour")
    worker.work()
    assert problems(quiet, neighbour, mails_most=1) == []
    assert quiet.rows(select(incidents).where(incidents.c.token_id == poison)) == []
    (parked,) = quiet.rows(select(scans).where(scans.c.state == "parked"))
    (event,) = quiet.rows(select(audit_events).where(audit_events.c.action == "scan.parked"))
    assert event["correlation_id"] == parked["id"]
    assert "parked" in quiet.patrol("doctor").stdout
    assert "1 parked" in quiet.patrol("doctor", "--retry").stdout
    worker.work()
    assert problems(quiet, poison, mails_most=1) == []


def test_a_worker_that_wakes_after_its_lease_changes_nothing(quiet: Any, worker: Worker) -> None:
    """One worker is stopped in the middle of a scan; another one ends it; the first goes on."""
    token_id = leak(quiet, "paused")
    first = subprocess.Popen(
        [sys.executable, str(SCRIPT.with_name("paused.py")), "2"],
        env=quiet.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stdin is not None
    assert first.stdout is not None
    assert first.stdout.readline() == "paused\n"
    pass_time(quiet)
    worker.work()
    assert problems(quiet, token_id, mails_most=1) == []
    first.stdin.write("go on\n")
    first.stdin.close()
    assert first.wait(60) == 0
    first.stdout.close()
    assert problems(quiet, token_id, mails_most=1) == []
    (scan,) = quiet.rows(select(scans).where(scans.c.body_digest == "digest-paused"))
    assert (scan["state"], scan["fence"]) == ("done", 2)


def test_the_real_processes_killed_at_random(build_house: Any, wait: Any) -> None:
    """Web, worker and beat on the embedded broker, killed again and again under pushes."""
    house = build_house(lease_seconds=5)
    for role in ("mail", "web", "beat", "worker"):
        house.start(role)
    wait("the web process", house.is_ready)
    source = random.Random(26)
    leaked = []
    repository = house.repository("acme/storm")
    before = ZEROS
    for round_ in range(6):
        for number in range(3):
            token, token_id = house.issue()
            after = repository.commit({f"{round_}-{number}": token})
            repository.push()
            answer = house.deliver(house.push_event("acme/storm", before, after))
            assert answer.status_code == 202
            before = after
            leaked.append(token_id)
        victim = ("worker", "worker", "beat", "worker", "web", "worker")[round_]
        done = select(scans.c.id).where(scans.c.state == "done")
        target = source.randrange(3)  # scans of this round that may finish before the blow
        finished = len(house.rows(done))
        wait(
            "some work",
            lambda done=done, enough=finished + target: (
                len(house.rows(done)) >= enough
                or not house.rows(select(scans.c.id).where(scans.c.state != "done"))
            ),
        )
        house.kill(victim)
        house.start(victim)
        wait("the web process", house.is_ready)
    query = select(tokens.c.state).where(tokens.c.id.in_(leaked))
    wait("all revocations", lambda: {r["state"] for r in house.rows(query)} == {"revoked"})
    unsent = select(outbox.c.id).where(outbox.c.state != "done")
    unfinished = select(incidents.c.id).where(incidents.c.state != "done")
    wait("all mails", lambda: not house.rows(unfinished) and not house.rows(unsent))
    wrong = {token_id: problems(house, token_id, mails_most=2) for token_id in leaked}
    assert {name: found for name, found in wrong.items() if found} == {}
    wait("the seals", lambda: not verification(house).unsealed)
    assert verification(house).problems == ()
