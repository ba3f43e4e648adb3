"""An installation whose work is done by mortal processes, and what must be true of its leaks."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import delete, select

from scanner.db import audit, policies, watches
from scanner.db.dialect import SQLITE
from scanner.db.engine import reader
from scanner.db.schema import (
    audit_events,
    incidents,
    outbox,
    scans,
    sealed_candidates,
    sightings,
    tokens,
)
from scanner.db.schema import watches as watch_list
from tests.conftest import SmtpServer
from tests.house import ZEROS, House, until
from tests.reliability.minutes import pass_time

_PROGRAM = "tests.reliability.killed"
REVOKED = ["leak.found", "notice.delivered", "revocation.decided", "token.revoked"]
KEPT = ["leak.found", "notice.delivered", "revocation.withheld"]

Flow = Literal["revoked", "away", "kept", "watched", "by_secret"]


@dataclass
class Leak:
    """One token in one pushed commit, and the order that tells a process of it."""

    token_id: str
    repository: str
    order: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came of a process: how it ended (None: it stopped), the points it passed."""

    status: int | None
    accepted: bool
    points: list[str]


class Installation:
    """One house, its mailbox, and the processes that work for it."""

    def __init__(self, house: House, mailbox: SmtpServer) -> None:
        self.house, self.mailbox = house, mailbox
        with house.services.database.begin() as connection:
            for organisation in ("Contoso", "Fabrikam"):
                house.ensure_owner(connection, organisation)
            policies.set_auto_revoke(connection, "Fabrikam", enabled=False, actor="test")

    def leak(self, name: str, flow: Flow) -> Leak:
        """Push a fresh token; nobody has told Patrol yet."""
        house = self.house
        token, token_id = house.issue(organisation="Fabrikam" if flow == "kept" else "Contoso")
        repository = house.repository(f"acme/{name}")
        after = repository.commit({"key.txt": f"key = {token}\n"})
        repository.push()
        deliver = away = None
        if flow == "watched":
            with house.services.database.begin() as connection:
                watches.add_watch(connection, house.server.url, repository.name, 3600, "test")
        else:
            body = house.push_event(repository.name, ZEROS, after)
            deliver = [body.decode(), {"X-Hub-Signature-256": house.sign(body)}]
        if flow == "away":
            away = [str(house.folder / f"{name}-is-back"), str(repository.bare)]
        order = {"do": "work", "deliver": deliver, "by_secret": flow == "by_secret", "away": away}
        return Leak(token_id, repository.name, order)

    def forget_watches(self) -> None:
        with self.house.services.database.begin() as connection:
            connection.execute(delete(watch_list))

    @property
    def has_one_writer(self) -> bool:
        return self.house.services.engine.dialect.name == SQLITE

    def end_silent_client(self) -> None:
        """What PostgreSQL does after a minute to who is silent within a transaction."""

        def end() -> bool:
            with self.house.services.engine.begin() as connection:
                ended = connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND state = 'idle in transaction'"
                )
                return list(ended.scalars()) == [True]

        until("the client that is silent within a transaction", end)

    def rest(self) -> None:
        """Let minutes pass: leases end, pauses too."""
        pass_time(self.house.services.database)

    def problems(self, leak: Leak, *, flow: Flow, mails: range) -> list[str]:
        """What is wrong with the outcome of a leak whose work is done."""
        found = []
        house = self.house
        (token,) = house.rows(select(tokens).where(tokens.c.id == leak.token_id))
        rows = house.rows(select(incidents).where(incidents.c.token_id == leak.token_id))
        if len(rows) != 1:
            return [f"{len(rows)} incidents"]
        (incident,) = rows
        ends = ("active", None) if flow == "kept" else ("revoked", incident["id"])
        if (token["state"], token["revoked_by"]) != ends:
            found.append(f"the token is {token['state']} by {token['revoked_by']}")
        phase = "still_active" if flow == "kept" else "revoked"
        if (incident["phase"], incident["state"]) != (phase, "done"):
            found.append(f"the incident is {incident['phase']}, {incident['state']}")
        of_incident = sightings.c.incident_id == incident["id"]
        places = house.rows(select(sightings.c.id).where(of_incident))
        if (len(places), incident["sightings"]) != (1, 1):
            found.append(f"{len(places)} sightings, {incident['sightings']} counted")
        of_incident = audit_events.c.incident_id == incident["id"]
        events = house.rows(select(audit_events.c.action).where(of_incident))
        actions = sorted(event["action"] for event in events)
        if actions != (KEPT if flow == "kept" else REVOKED):
            found.append(f"audit {actions}")
        sent = self.mails(incident["id"])
        if sent not in mails:
            found.append(f"{sent} mails")
        return found

    def mails(self, incident_id: str) -> int:
        """How often the one mail of an incident arrived."""
        (row,) = self.house.rows(select(outbox.c.id).where(outbox.c.incident_id == incident_id))
        return sum(
            str(message["Message-ID"]).startswith(f"<{row['id']}@")
            for _, message in self.mailbox.got
        )

    def unfinished(self) -> list[str]:
        """Work that is not at its end; raw tokens that are still held."""
        left = [
            f"{table.name} {row['id']} is {row['state']}: {row['error']}"
            for table in (scans, incidents, outbox, sealed_candidates)
            for row in self.house.rows(select(table).where(table.c.state != "done"))
        ]
        held = sealed_candidates.c.sealed.is_not(None)
        return left + [
            f"a token is held for {row['cause']}"
            for row in self.house.rows(select(sealed_candidates).where(held))
        ]

    def trail(self) -> audit.Verification:
        with reader(self.house.services.database).connect() as connection:
            return audit.verify(connection)


class Workers:
    """Starts processes that do an installation's work, and die or stop where they are told."""

    def __init__(self, house: House) -> None:
        self._is_stopped = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", _PROGRAM],
            env=house.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _ask(self, order: dict[str, Any]) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if answer["accepted"]:
            order["deliver"] = None  # GitHub had its 202, and will not say it again
        status = None if answer["paused"] else answer["status"]
        return Answer(status, answer["accepted"], answer["points"] or [])

    def work(self, leak: Leak) -> list[str]:
        """Do everything there is to do; returns the points that were passed."""
        leak.order.update(at=None, label=None, how="kill")
        answer = self._ask(leak.order)
        assert answer.status == 0, f"the process ended with {answer.status}"
        return answer.points

    def dies(self, leak: Leak, at: int | None, label: str) -> bool:
        """Work until killed at the point of that number, or at the first of that label."""
        leak.order.update(at=at, label=label, how="kill")
        return self._ask(leak.order).status == -signal.SIGKILL

    def stops(self, leak: Leak, at: int, label: str) -> bool:
        """Work until that point, and stay there."""
        leak.order.update(at=at, label=label, how="pause")
        self._is_stopped = self._ask(leak.order).status is None
        return self._is_stopped

    def resume(self) -> bool:
        """Let the one that stopped go on to its end; False: it failed."""
        self._is_stopped = False
        return self._ask({"do": "resume"}).status == 0

    def close(self) -> None:
        if self._is_stopped:
            self.resume()
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


def new_name() -> str:
    return f"r-{secrets.token_hex(4)}"
