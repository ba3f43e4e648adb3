"""Run a command with a real PostgreSQL and a real Redis of its own; `make run-real` does.

    real_servers.py COMMAND [ARGUMENT...]         such as .venv/bin/patrol up

Both servers listen on loopback alone, with passwords that are made once. What PostgreSQL holds is
kept: in PATROL_DATA_DIR/servers or, for root, under /var/lib/patrol-servers, because PostgreSQL
refuses to run as root and another user may not enter root's folders. The command gets
PATROL_DATABASE_URL_FILE and PATROL_BROKER_URL_FILE. When it ends, or on Ctrl-C, everything stops in
order: the command, Redis, PostgreSQL; so it does when this program is killed.

SERVERS_DIR, POSTGRES_PORT (5433) and REDIS_PORT (6380) change where they are.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
START_SECONDS, STOP_SECONDS = 60.0, 60.0
_PR_SET_PDEATHSIG = 1


class SetupError(Exception):
    """What is missing or in the way, in one sentence for a person."""


def find_servers() -> tuple[Path, Path]:
    """Redis' program and the folder of PostgreSQL's; installed where that is possible."""
    names = ("redis-server", "postgresql")
    subprocess.run([SCRIPTS / "test_servers.sh", *names], check=True)
    told = subprocess.run(
        [SCRIPTS / "test_servers.sh", "where", *names], capture_output=True, text=True, check=True
    ).stdout
    places = [line.split("\t")[1] for line in told.splitlines()]
    if not all(places):
        raise SetupError("install what is missing, then repeat.")
    redis, postgres = map(Path, places)
    return redis, postgres


def other_user() -> tuple[int, int] | None:
    """Whom the servers run as, where we are root; None: as we do."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return found.pw_uid, found.pw_gid
    raise SetupError("PostgreSQL does not run as root, and there is no user postgres or nobody.")


def place_of(data_dir: Path) -> Path:
    """Where the servers keep what they hold."""
    if given := os.environ.get("SERVERS_DIR"):
        return Path(given).resolve()
    if os.geteuid() != 0:
        return data_dir / "servers"
    name = hashlib.sha256(str(data_dir).encode()).hexdigest()[:12]
    return Path("/var/lib/patrol-servers") / name


def free_port(setting: str, default: int) -> int:
    """The port that is set, or the usual one; nobody else may listen there."""
    port = int(os.environ.get(setting, default))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise SetupError(f"port {port} is taken; set {setting} to another one.") from None
    return port


class Servers:
    """PostgreSQL and Redis as child processes; a context manager that leaves none behind."""

    def __init__(self, base: Path, user: tuple[int, int] | None) -> None:
        self.base, self.secrets = base, base / "secrets"
        self._who: dict[str, Any] = {}
        if user is not None:
            self._who = {"user": user[0], "group": user[1], "extra_groups": []}
        self._user = user
        self._running = ExitStack()

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_error: object) -> None:
        self._running.close()

    def prepare(self) -> None:
        """Make the folder and the passwords, for the servers' user only."""
        self.base.mkdir(parents=True, exist_ok=True)
        subprocess.run([SCRIPTS / "server_secrets.sh", self.secrets], check=True)
        self.own(self.base, self.secrets, *self.secrets.iterdir())
        self.base.chmod(0o700)

    def own(self, *places: Path) -> None:
        if self._user is not None:
            for place in places:
                os.chown(place, *self._user)

    def start(
        self, name: str, words: Sequence[object], stop: int, is_ready: Callable[[], bool]
    ) -> None:
        """Start a server, to be stopped by the signal `stop`, and wait until it answers."""
        log = self.base / f"{name}.log"
        log.touch(0o600)
        self.own(log)
        with log.open("ab") as out:
            process = subprocess.Popen(
                [str(word) for word in words],
                cwd=self.base, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                # A session of its own: Ctrl-C reaches this program alone, which stops it in order.
                start_new_session=True, preexec_fn=dying_with_us(stop),  # noqa: PLW1509 (no threads here)
                **self._who,
            )  # fmt: skip
        self._running.callback(end, process, stop)
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SetupError(f"{name} did not start; {log} says why.")
            time.sleep(0.05)  # another process: there is nothing to wait for

    def postgresql(self, programs: Path, port: int) -> str:
        """Start PostgreSQL, with a database of Patrol's in a new cluster; returns its address."""
        data, mark = self.base / "postgresql", self.base / "postgresql.made"
        if not mark.exists():
            shutil.rmtree(data, ignore_errors=True)  # half of a first start that was killed
            self.run(
                programs / "initdb", "--pgdata", data, "--username=postgres", "--encoding=UTF8",
                "--no-locale", "--auth=scram-sha-256", "--data-checksums",
                f"--pwfile={self.secrets / 'database_admin_password'}",
            )  # fmt: skip

        def is_ready() -> bool:
            with suppress(FileNotFoundError):
                lines = (data / "postmaster.pid").read_text().splitlines()
                return len(lines) > 7 and lines[7].strip() == "ready"
            return False

        self.start(
            "postgresql",
            [programs / "postgres", "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1",
             "-c", "unix_socket_directories="],
            signal.SIGINT, is_ready,
        )  # fmt: skip
        if not mark.exists():
            self.run(
                SCRIPTS / "compose_database.sh",
                PATH=f"{programs}:{os.environ.get('PATH', os.defpath)}",
                PGHOST="127.0.0.1", PGPORT=str(port),
                PGPASSWORD=self.secret("database_admin_password"),
                DATABASE_PASSWORD_FILE=str(self.secrets / "database_password"),
            )  # fmt: skip
            mark.touch()
        return f"postgresql://patrol:{self.secret('database_password')}@127.0.0.1:{port}/patrol"

    def redis(self, program: Path, port: int) -> str:
        """Start Redis; returns its address."""

        def is_ready() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
            return False

        self.start(
            "redis",
            [program, self.secrets / "redis.conf", "--port", port, "--bind", "127.0.0.1"],
            signal.SIGTERM, is_ready,
        )  # fmt: skip
        return f"redis://patrol:{self.secret('redis_password')}@127.0.0.1:{port}/0"

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def write(self, name: str, value: str) -> str:
        """Keep an address where its owner alone reads it; returns the file's path."""
        file = self.secrets / name
        file.unlink(missing_ok=True)
        file.touch(0o600)
        file.write_text(value + "\n")
        return str(file)

    def run(self, *words: object, **environment: str) -> None:
        """Run a program as the servers' user; what it says is shown when it fails."""
        done = subprocess.run(
            [str(word) for word in words], env={**os.environ, **environment}, cwd=self.base,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **self._who,
        )  # fmt: skip
        if done.returncode:
            sys.stderr.write(done.stdout + done.stderr)
            raise SetupError(f"{Path(str(words[0])).name} failed; the lines above say why.")


def dying_with_us(number: int) -> Callable[[], None]:
    """For a child, before it begins: get the signal when this process is gone, however it went."""
    parent = os.getpid()

    def ask() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return ask


def end(process: subprocess.Popen[bytes], number: int) -> int:
    """Stop a child in order; one that does not heed is killed."""
    with suppress(ProcessLookupError):
        process.send_signal(number)
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def obey(words: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command until it ends; the first SIGINT or SIGTERM is handed to it. Returns its exit
    code."""
    process = subprocess.Popen(
        words, env=environment, start_new_session=True,
        preexec_fn=dying_with_us(signal.SIGTERM),  # noqa: PLW1509 (no threads here)
    )  # fmt: skip

    def hand_on(number: int, _frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)  # it is stopping: a second one would cut that short
        with suppress(ProcessLookupError):
            process.send_signal(number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, hand_on)
    return process.wait()


def main(words: Sequence[str]) -> int:
    """Start both, run the command, stop all; returns its exit code."""
    if not words:
        raise SetupError("usage: real_servers.py COMMAND [ARGUMENT...]")
    redis, postgres = find_servers()
    data_dir = Path(os.environ.get("PATROL_DATA_DIR", "patrol-data")).resolve()
    ports = free_port("POSTGRES_PORT", 5433), free_port("REDIS_PORT", 6380)
    with Servers(place_of(data_dir), other_user()) as servers:
        servers.prepare()
        environment = {
            **os.environ,
            "PATROL_DATABASE_URL_FILE": servers.write(
                "local_database_url", servers.postgresql(postgres, ports[0])
            ),
            "PATROL_BROKER_URL_FILE": servers.write(
                "local_broker_url", servers.redis(redis, ports[1])
            ),
        }
        print(f"PostgreSQL and Redis are up; what they hold is in {servers.base}.", flush=True)
        return obey(words, environment)


if __name__ == "__main__":
    # Until the command runs, a signal ends this program by an exception, and so in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except SetupError as error:
        sys.stderr.write(f"real servers: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
