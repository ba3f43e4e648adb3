"""A whole installation of real processes on loopback; every part of it can be broken."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx2
from sqlalchemy import Engine

from scanner.bootstrap import Services
from scanner.db.dialect import POSTGRESQL
from scanner.db.engine import create_database_engine
from scanner.db.upgrade import upgrade_database
from scanner.embedded.git_server import GitServer
from scanner.settings import load_settings
from tests.chaos import disk
from tests.chaos.disk import Disk
from tests.chaos.issuer import Issuer, OwnStore, Service, describe, new_service
from tests.chaos.mailbox import Mailbox
from tests.chaos.programs import Program, Warden, build_clock, environment
from tests.servers.postgres import PostgresServer
from tests.servers.present import place_of
from tests.servers.process import free_port
from tests.servers.redis import RedisServer
from tests.servers.token_service import TokenService

LEASE_SECONDS = 6
BUILTIN, HTTP = "builtin", "http"  # kinds of stores
_START_SECONDS = 90.0
_DISK_BYTES = 320 << 20
_POSTGRES_OPTIONS = {"max_wal_size": "64MB", "min_wal_size": "32MB"}


class World:
    """Web, two workers, beat, a mailbox, a git host, and a database and a broker of one kind."""

    def __init__(self, database: str, store: str) -> None:
        self.database_kind, self.store_kind = database, store
        self._stack = ExitStack()
        self.postgres: PostgresServer | None = None
        self.redis: RedisServer | None = None
        self.service: TokenService | None = None  # the issuer's, over HTTP
        self.disk: Disk | None = None  # the database's
        self.programs: dict[str, Program] = {}

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs.values():
            program.kill()
        self._stack.close()

    def _build(self) -> None:
        enter = self._stack.enter_context
        self.folder = Path(tempfile.mkdtemp(prefix="patrol-chaos-"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.data, self.logs = self.folder / "data", self.folder / "logs"
        for path in (self.data, self.logs):
            path.mkdir(mode=0o700)
        settings: dict[str, Any] = {}
        if self.database_kind == POSTGRESQL:
            settings["database_url"] = self._start_postgres()
            self.redis = enter(RedisServer(_program("redis-server")))
            settings["broker_url"] = self.redis.url()
        elif disk.is_possible():
            self.disk = enter(Disk(self.data, _DISK_BYTES))
        if self.store_kind == HTTP:
            self.service = enter(new_service())
            settings["store"] = describe(self.service, self.folder)
        self.mailbox = enter(Mailbox(free_port()))
        self.git = self._new_git()
        self._stack.callback(self.stop_git)
        settings |= {
            "data_dir": self.data, "github_url": self.git.url, "allow_hosts": self.git.address,
            "smtp_url": f"smtp://127.0.0.1:{self.mailbox.port}", "lease_seconds": LEASE_SECONDS,
            "port": free_port(), "smtp_port": free_port(), "mail_port": free_port(),
            "fetch_timeout": 10, "inspect_timeout": 10,
        }  # fmt: skip
        self.services = Services(load_settings(settings))
        self._stack.callback(self.services.close)
        upgrade_database(self.services.engine)
        self.issuer: Issuer = (
            OwnStore(self.services)
            if self.service is None
            else Service(self.service, self.services)
        )
        self.url = self.services.settings.base_url
        self.clock = build_clock(self.folder)
        around = environment(self.folder, settings)
        for name, arguments in (
            ("web", ["web"]), ("worker-1", ["worker"]), ("worker-2", ["worker"]), ("beat", ["beat"])
        ):  # fmt: skip
            self.programs[name] = Program(name, arguments, around, self.logs, self.clock)
        for program in self.programs.values():
            program.start()
        self.warden = enter(Warden(self.programs.values()))
        self.until("the web process answers", self.answers, _START_SECONDS)

    def _start_postgres(self) -> str:
        server = PostgresServer(_program("postgresql"), options=_POSTGRES_OPTIONS)
        if disk.is_possible():
            self.disk = self._stack.enter_context(
                Disk(server.folder, _DISK_BYTES, server.folder.stat().st_uid)
            )
        self.postgres = self._stack.enter_context(server)
        return server.url(server.create_database())

    def _new_git(self, port: int = 0) -> GitServer:
        server = GitServer(self.folder / "served", port)
        server.__enter__()
        return server

    # To break things.

    @property
    def workers(self) -> tuple[Program, ...]:
        return self.programs["worker-1"], self.programs["worker-2"]

    def stop_git(self) -> None:
        """The host of the repositories refuses connections."""
        self.git.__exit__(None, None, None)

    def start_git(self) -> None:
        self.git = self._new_git(int(self.git.address.rpartition(":")[2]))

    # To look.

    def answers(self) -> bool:
        return self._status("/healthz") == 200

    def is_ready(self) -> bool:
        return self._status("/readyz") == 200

    def _status(self, path: str) -> int:
        with suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}{path}", trust_env=False, timeout=5).status_code
        return 0

    def until(self, what: str, look: Callable[[], object], seconds: float) -> bool:
        """Wait until `look` is true; False: it never was, which is said."""
        deadline = time.monotonic() + seconds
        while not look():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)  # other processes write what it reads
        return True

    @contextmanager
    def looking(self) -> Iterator[Engine]:
        """The database for one look, by a connection of its own."""
        engine = create_database_engine(self.services.settings.database)
        try:
            yield engine
        finally:
            engine.dispose()


def _program(name: str) -> Path:
    place = place_of(name)
    if place is None:
        raise SystemExit(f"{name} is missing; on Debian, as root: make setup-servers")
    return place
