"""Patrol's work in processes that die, as of kill -9, or stop for a while at a chosen point.

Run by installation.py. Reads one order a line (JSON), forks, and answers with one line:

    {"do": "work", "at": NUMBER, "label": LABEL, "how": "kill|pause",
     "deliver": [body, headers], "by_secret": bool, "away": [flag file, repository to remove]}
    {"do": "resume"}                          the process that stopped

The point is that of the number, or the first with the label; with neither, none. A process takes
the webhook, if one is to be delivered, as the web process does, and does all the work that there is
then. With "away", the token store is away until all else is done; then the repository is removed,
time passes, and the store is back.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import httpx2
from celery import Celery
from sqlalchemy import Engine

from scanner.bootstrap import Services
from scanner.db.engine import create_database_engine, reader
from scanner.db.lanes import Lane
from scanner.db.leases import is_ready
from scanner.db.schema import incidents, outbox, scans, sealed_candidates
from scanner.git.inline import InlineInspector
from scanner.settings import Settings, load_settings
from scanner.tasks import register
from scanner.web.app import create_app
from scanner.worker import DELIVER, RECHECK, RESPOND, SCANS, SEAL, TICK, CeleryWaker, make_app
from tests.reliability.minutes import pass_time
from tests.reliability.points import (
    PointedFetcher,
    PointedStore,
    Points,
    watch_commits,
    watch_smtp,
    watch_wakes,
)

_STEPS = {
    SCANS[Lane.HISTORY]: scans,
    RECHECK: sealed_candidates,
    RESPOND: incidents,
    DELIVER: outbox,
}


class Mortal:
    """One process's life; `say` tells the parent what came of it."""

    def __init__(self, shared: Services, order: dict[str, Any], say: TextIO) -> None:
        self._order, self._say = order, say
        self.points = Points(order["at"], order["label"], self._act)
        self._flag, self._repository = map(Path, order["away"] or ("/", "/"))
        self._services = Services(shared.settings)
        known = vars(self._services)
        known.update({name: vars(shared)[name] for name in ("matcher_ruleset", "matcher")})
        known["inspector"] = InlineInspector(shared.matcher)
        watch_commits(self._services.database, self.points)
        watch_smtp(self.points)
        watch_wakes(self.points)
        known["fetcher"] = PointedFetcher(self._services.fetcher, self.points)
        store = self._services.store
        poor = replace(store.abilities, revokes_by="secret") if order["by_secret"] else None
        known["store"] = PointedStore(store, self.points, lambda: not self._flag.exists(), poor)

    def live(self) -> None:
        """Do everything there is to do."""
        app = make_app(self._services.settings)
        app.control.purge()  # no worker takes them here, and of what waits for long no more is sent
        if self._order["deliver"] is not None:
            asyncio.run(self._take(app, *self._order["deliver"]))
        register(app, self._services, CeleryWaker(app))
        app.tasks[TICK]()
        self._drain(app)
        if not self._flag.exists():
            shutil.rmtree(self._repository)
            pass_time(self._quiet)
            self._flag.touch()
            self._drain(app)
        app.tasks[SEAL]()

    async def _take(self, app: Celery, body: str, headers: dict[str, str]) -> None:
        web = httpx2.ASGITransport(create_app(self._services, CeleryWaker(app)))
        async with httpx2.AsyncClient(transport=web, base_url="http://patrol") as client:
            answer = await client.post("/webhooks/github", content=body.encode(), headers=headers)
        assert answer.status_code == 202, answer.text
        self._tell("accepted")

    def _drain(self, app: Celery) -> None:
        while waiting := self._waiting():
            for name in waiting:
                app.tasks[name]()

    def _waiting(self) -> list[str]:
        with reader(self._services.engine).connect() as connection:
            return [name for name, table in _STEPS.items() if is_ready(connection, table)]

    @property
    def _quiet(self) -> Engine:
        """The database by a way that passes no points."""
        return create_database_engine(self._services.settings.database)

    def _act(self) -> None:
        if self._order["how"] == "pause":
            self._tell("paused")
        how = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP}[self._order["how"]]
        # To this thread: of a process with several another might hear it, and this one go on.
        signal.pthread_kill(threading.get_ident(), how)

    def _tell(self, what: str) -> None:
        self._say.write(f"{what}\n")
        self._say.flush()


class Child:
    """A forked process: it saves importing, which takes longest."""

    def __init__(self, shared: Services, order: dict[str, Any]) -> None:
        hear, say = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(hear)
            with os.fdopen(say, "w") as out:
                mortal = Mortal(shared, order, out)
                mortal.live()
                out.write(json.dumps(mortal.points.passed) + "\n")
            os._exit(0)
        os.close(say)
        self._heard = os.fdopen(hear)
        self._accepted = False

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def hear(self) -> dict[str, Any]:
        """Wait until it has ended or stopped, and tell."""
        points = None
        for line in self._heard:
            if line == "paused\n":
                os.waitpid(self.pid, os.WUNTRACED)
                return {"paused": True, "accepted": self._accepted, "points": None, "status": None}
            if line == "accepted\n":
                self._accepted = True
            else:
                points = json.loads(line)
        self._heard.close()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return {"paused": False, "accepted": self._accepted, "points": points, "status": status}


def _shared(settings: Settings) -> Services:
    """What does not touch the database is built once, before any fork."""
    services = Services(settings)
    _ = services.matcher
    return services


def main() -> None:
    shared = _shared(load_settings())
    stopped: Child | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "resume":
            assert stopped is not None
            child, stopped = stopped, None
            child.go_on()
        else:
            child = Child(shared, order)
        answer = child.hear()
        if answer["paused"]:
            stopped = child
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
