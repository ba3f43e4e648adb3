"""`patrol up` and its processes: all start or none, they stop in order, and none is left behind."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scanner.bootstrap import Services
from scanner.db.upgrade import upgrade_database
from scanner.embedded.ports import check_port_free
from scanner.embedded.supervisor import Supervisor
from scanner.errors import ConfigurationError
from scanner.settings import load_settings
from tests.servers import guardian

ROOT = Path(__file__).parents[2]
PORTS = ("port", "smtp_port", "mail_port")
ROLES = {"web", "worker", "beat", "mail"}
PATIENCE_MS = 30_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    """An installation whose database is there."""
    chosen = {"data_dir": tmp_path / "data", **{name: free_port() for name in PORTS}}
    services = Services(load_settings(chosen))
    upgrade_database(services.engine)
    _ = services.database, services.matcher
    services.engine.dispose()
    return chosen


def environment(values: Mapping[str, Any]) -> dict[str, str]:
    given = {f"PATROL_{name.upper()}": str(value) for name, value in values.items()}
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **given}


@pytest.fixture
def supervise(values: dict[str, Any]) -> Callable[..., Supervisor]:
    def build(extra: Mapping[str, Any] | None = None, **limits: float) -> Supervisor:
        children = environment({**values, **(extra or {})})
        return Supervisor(load_settings(values), children, **limits)

    return build


def children(pid: int) -> list[int]:
    """A process's children, but for the servers that the tests themselves keep running."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    below = [int(child) for task in tasks for child in task.read_text().split()]
    return [child for child in below if not is_guardian(child)]


def is_guardian(pid: int) -> bool:
    try:
        return guardian.__file__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def family(root: int) -> set[int]:
    """Every process below `root`, the children's children included."""
    found: set[int] = set()
    waiting = [root]
    while waiting:
        below = children(waiting.pop())
        found.update(below)
        waiting += below
    return found


def roles(root: int) -> dict[str, int]:
    """Role -> process id of a supervisor's own children."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in children(root)}
    return {
        line[3].decode(): pid for pid, line in lines.items() if line[1:3] == [b"-m", b"scanner.cli"]
    }


def pool_of(worker: int) -> set[int]:
    """The worker's own processes, once there are some: it starts them when it likes."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while len(children(worker)) < 2:
        assert time.monotonic() < deadline, "the worker has no processes"
        time.sleep(0.02)
    return family(worker)


@contextmanager
def watching(*pids: int) -> Iterator[Callable[..., set[int]]]:
    """Yield a function that waits until the given processes have ended, and returns those (of all
    that are watched) that have."""
    with ExitStack() as stack:
        handles = {}
        for pid in pids:
            handles[pid] = os.pidfd_open(pid)
            stack.callback(os.close, handles[pid])

        def ended(*wanted: int) -> set[int]:
            for pid in wanted:
                poll = select.poll()
                poll.register(handles[pid], select.POLLIN)
                assert poll.poll(PATIENCE_MS), f"process {pid} has not ended"
            return {pid for pid, handle in handles.items() if select.select([handle], [], [], 0)[0]}

        yield ended


# Start.


@pytest.mark.parametrize("name", PORTS)
def test_a_taken_port_is_one_sentence_and_nothing_starts(
    values: dict[str, Any], supervise: Callable[..., Supervisor], name: str
) -> None:
    said = f"Port {values[name]} on 127.0.0.1 .*in use.*; set PATROL_{name.upper()} to a free one"
    before = family(os.getpid())
    with (
        socket.create_server(("127.0.0.1", values[name])),
        pytest.raises(ConfigurationError, match=said),
        supervise(),
    ):
        pytest.fail("it started")
    assert family(os.getpid()) <= before
    assert list((values["data_dir"] / "logs").iterdir()) == []


def test_a_port_that_somebody_just_left_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Port {port}"):
            check_port_free("127.0.0.1", port, "PATROL_PORT")
        client = socket.create_connection(("127.0.0.1", port))
        listener.accept()[0].close()  # closed by this end first: its port lingers
        client.close()
    check_port_free("127.0.0.1", port, "PATROL_PORT")


def test_a_host_that_is_not_ours_is_one_sentence() -> None:
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(ConfigurationError, match=f"{host} is no address.*set PATROL_HOST"):
            check_port_free(host, 8080, "PATROL_PORT")


def test_a_process_that_cannot_start_is_one_sentence_in_its_own_words(
    values: dict[str, Any], supervise: Callable[..., Supervisor]
) -> None:
    said = r"^The (web|worker|beat) process ended \(exit code 2\): patrol: PATROL_GITHUB_WEBHOOK"
    extra = {"github_webhook_secret": "short"}
    before = family(os.getpid())
    with pytest.raises(ConfigurationError, match=said) as caught, supervise(extra):
        pytest.fail("it started")
    assert "\n" not in str(caught.value)
    assert family(os.getpid()) <= before


def test_an_answer_that_is_not_the_web_process_is_not_waited_for_for_ever(
    values: dict[str, Any], supervise: Callable[..., Supervisor]
) -> None:
    # The mail catcher answers at the web's port, and knows no /readyz.
    swapped = {"port": values["mail_port"], "mail_port": values["port"]}
    before = family(os.getpid())
    with (
        pytest.raises(ConfigurationError, match=r"not ready after 3 s; see .*web\.log"),
        supervise(swapped, start_seconds=3),
    ):
        pytest.fail("it started")
    assert family(os.getpid()) <= before


# While it runs, and the end.


def test_a_process_that_dies_is_named_and_the_others_are_stopped(
    values: dict[str, Any], supervise: Callable[..., Supervisor]
) -> None:
    with supervise() as running:
        running.check()
        started = roles(os.getpid())
        assert set(started) == ROLES
        pool = pool_of(started["worker"])  # nobody tells these that they are alone
        everything = pool | family(os.getpid())
        said = r"^The worker process ended \(signal 9\): "
        with watching(*everything) as ended:
            os.kill(max(pool), signal.SIGSTOP)  # this one could not notice
            os.kill(started["worker"], signal.SIGKILL)
            with pytest.raises(ConfigurationError, match=said):
                running.wait()
            running.stop()
            assert ended(*everything) == everything
        running.stop()  # once more is no error
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{values['port']}/healthz", trust_env=False)


def test_the_intake_stops_first_and_the_mailbox_last(supervise: Callable[..., Supervisor]) -> None:
    with supervise() as running:
        started = roles(os.getpid())
        with watching(*started.values()) as ended:
            # A worker that is held cannot end, so the others show what came before and after it.
            os.kill(started["worker"], signal.SIGSTOP)
            stopping = threading.Thread(target=running.stop)
            stopping.start()
            try:
                first = {started["web"], started["beat"]}
                assert ended(*first) == first
            finally:
                os.kill(started["worker"], signal.SIGCONT)
            assert ended(started["mail"]) == set(started.values())
            stopping.join()


def test_a_process_that_does_not_stop_is_killed(
    values: dict[str, Any], supervise: Callable[..., Supervisor], smtp_server: Any
) -> None:
    # The mail goes elsewhere, so there is no mail catcher to start.
    values["smtp_url"] = f"smtp://127.0.0.1:{smtp_server.port}"
    logs = values["data_dir"] / "logs"
    logs.mkdir()
    (logs / "beat.log").write_text("what an earlier run said\n")
    with supervise(stop_seconds=1) as running:
        started = roles(os.getpid())
        assert set(started) == ROLES - {"mail"}
        everything = family(os.getpid())
        with watching(*everything) as ended:
            os.kill(started["beat"], signal.SIGKILL)
            ended(started["beat"])
            with pytest.raises(ConfigurationError, match=r"beat .* \(signal 9\): it said nothing$"):
                running.check()
            os.kill(started["worker"], signal.SIGSTOP)
            running.stop()
            assert ended(*everything) == everything


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_however_patrol_up_ends_no_process_stays(
    values: dict[str, Any], number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "scanner.cli", "up"],
        env=environment(values), cwd=ROOT, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert "Ctrl-C stops.\n" in iter(process.stdout.readline, "")
            started = roles(process.pid)
            assert set(started) == ROLES
            below = pool_of(started["worker"]) | family(process.pid)
            with watching(*below) as ended:
                process.send_signal(number)
                assert ended(*below) == below
            assert process.wait(30) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        finally:
            process.kill()


def test_a_process_whose_supervisor_went_before_it_could_ask_ends_at_once(
    values: dict[str, Any],
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    done = subprocess.run(
        [sys.executable, "-m", "scanner.cli", "mail"],
        env={**environment(values), "PATROL_SUPERVISED": str(gone.pid)},
        cwd=ROOT, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGTERM
