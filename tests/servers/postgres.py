"""A real PostgreSQL of the tests' own: a new cluster, never the machine's.

As root it runs as another user, as PostgreSQL demands. Whoever may use this machine's loopback may
use the cluster: it holds nothing but what tests made up.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from tests.servers.process import Server

OWNER = "patrol"  # who owns the databases; no superuser, as in an installation
_ADMINISTRATOR = "postgres"
_FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
_DEFAULTS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "mmap",  # in its folder: nothing is left after a kill
    "log_min_messages": "warning",
    "timezone": "UTC",
}


def _other_user() -> int | None:
    """Whom a cluster of root's runs as; None for us."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    return 65534


class PostgresServer(Server):
    """A cluster whose text sorts as in English, not byte by byte, where this version can.

    `durable=False` gives up what survives a power cut, for speed. `options` are settings of the
    server; `programs` is the folder of `initdb` and `postgres` (see `needs("postgresql")`).
    """

    name = "postgresql"
    last_signal = signal.SIGQUIT
    stop_signal = signal.SIGINT

    def __init__(
        self, programs: Path, *, durable: bool = True, options: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(_other_user())
        self._programs = programs
        self._options = {**_DEFAULTS, **({} if durable else _FAST), **(options or {})}
        self._data = self.folder / "data"
        self._names = (f"patrol_{number}" for number in count(1))

    def start(self) -> None:
        """Start the cluster, or after a kill let it recover, and wait until it answers."""
        is_new = not self._data.exists()
        if is_new:
            self._make_cluster()
        super().start()
        if is_new:
            self.execute(f"CREATE ROLE {OWNER} LOGIN")

    def _make_cluster(self) -> None:
        version = subprocess.run(
            [self._programs / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout.split()[2]
        locale = ["--locale=C", "--encoding=UTF8"]
        if int(version.split(".")[0]) >= 15:
            locale += ["--locale-provider=icu", "--icu-locale=en-US"]
        who: dict[str, Any] = {}
        if self._user is not None:
            who = {"user": self._user, "group": self._user, "extra_groups": []}
        made = subprocess.run(
            [
                self._programs / "initdb", "--no-sync", "--auth=trust", f"-U{_ADMINISTRATOR}",
                *locale, "-D", self._data,
            ],
            cwd=self.folder, capture_output=True, text=True, check=False, **who,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr

    def command(self) -> Sequence[str]:
        """The postmaster, with its socket in its own folder."""
        settings = {**self._options, "unix_socket_directories": str(self.folder)}
        return [
            str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port),
            *(f"--{name}={value}" for name, value in settings.items()),
        ]  # fmt: skip

    def is_ready(self) -> bool:
        """True when the postmaster says so, as `pg_ctl` asks it; after recovery too."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and int(lines[0]) == self.pid and lines[7].strip() == "ready"

    def url(self, database: str, *, user: str = OWNER) -> str:
        """The address of a database for SQLAlchemy."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as administrator, outside a transaction; returns its rows."""
        address = f"host=127.0.0.1 port={self.port} user={_ADMINISTRATOR} dbname={database}"
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, template: str | None = None) -> str:
        """Make an empty database, or copy one that nobody is connected to; returns its name."""
        name = next(self._names)
        copied = "" if template is None else f" TEMPLATE {template}"
        self.execute(f"CREATE DATABASE {name} OWNER {OWNER}{copied}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self) -> None:
        """End it and remove all that it made, a killed one's shared memory too."""
        with suppress(OSError, IndexError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            segment = int(lines[6].split()[1])
            super().close()
            ctypes.CDLL(None).shmctl(segment, 0, None)  # IPC_RMID; gone already unless killed
        super().close()
