"""From a proved hit to its revocation, on a real Redis and a real, durable PostgreSQL.

A scan's last step is done here, fifty times a second: the verdict's transaction and the wake. Web
and beat's part is left out; the worker is the real one, in its processes, mails included. Times are
those of the commits, as the database's server noted them.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from figures import Figure
from sqlalchemy import func, select, text

sys.path.insert(0, str(Path(__file__).parents[2]))

from scanner.bootstrap import Services
from scanner.db.schema import audit_events, scans
from scanner.db.upgrade import upgrade_database
from scanner.db.verdicts import Finding
from scanner.judge import Judged
from scanner.matcher.mask import mask
from scanner.model import (
    AuditAction,
    Candidate,
    Checksum,
    LocatedCandidate,
    ObjectKind,
    Place,
    Secret,
)
from scanner.patterns.generate import generate
from scanner.settings import load_settings
from scanner.sources.github_push import Push
from scanner.stores.sql import ensure_owner
from scanner.worker import RESPOND, CeleryWaker, make_app
from tests.servers.postgres import PostgresServer
from tests.servers.present import needs
from tests.servers.redis import RedisServer

_A_SECOND = 50
# Each event is a row that nobody changes later: of the transaction that made it the server knows
# when it was committed. A token's row changes last when it is revoked.
_WAITS = """
SELECT (EXTRACT(EPOCH FROM pg_xact_commit_timestamp(tokens.xmin)) - found.second) * 1000,
       (EXTRACT(EPOCH FROM pg_xact_commit_timestamp(decided.xmin)) - found.second) * 1000
FROM (SELECT *, EXTRACT(EPOCH FROM pg_xact_commit_timestamp(xmin)) AS second FROM audit_events
      WHERE action = 'leak.found') AS found
JOIN tokens ON tokens.id = found.token_id AND tokens.revoked_by = found.incident_id
JOIN audit_events AS decided
    ON decided.incident_id = found.incident_id AND decided.action = 'revocation.decided'
ORDER BY found.second
"""
_PATTERN = "azure-devops-pat"
_ROOT = Path(__file__).parents[2]
_MOST_SECONDS = 60.0


def measure(quick: bool) -> list[Figure]:
    """Send hits for a while, and tell how long each token still worked."""
    with ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory())
        postgres = PostgresServer(needs("postgresql"), options={"track_commit_timestamp": "on"})
        running.enter_context(postgres)
        redis = running.enter_context(RedisServer(needs("redis-server")))
        values = {
            "data_dir": folder,
            "database_url": postgres.url(postgres.create_database()),
            "broker_url": redis.url(),
            "smtp_url": f"smtp://127.0.0.1:{running.enter_context(_mail_sink())}",
        }
        services = Services(load_settings(values))
        running.callback(services.engine.dispose)
        upgrade_database(services.engine)
        environment = {f"PATROL_{name.upper()}": str(value) for name, value in values.items()}
        running.enter_context(_worker(environment))
        waits = _run(services, 2 if quick else 30)
    return [
        _figure(f"proved hit to revoked, {_A_SECOND}/s", waits["revoked"], "≤ 50 ms"),
        _figure("… to decided", waits["decided"]),
        _figure("… in the quietest five seconds", _quietest(waits["revoked"])),
    ]


def _figure(name: str, waits: Sequence[float], asked: str = "") -> Figure:
    half, most = statistics.median(waits), _most(waits)
    return Figure(
        f"{name}: median, 99 of 100", f"{half:.0f} ms, {most:.0f} ms", f"1 : {most / half:.1f}",
        asked,
    )  # fmt: skip


def _quietest(waits: Sequence[float]) -> Sequence[float]:
    """Of a machine that others use, too: the five seconds that were disturbed least."""
    size = 5 * _A_SECOND
    parts = [waits[at : at + size] for at in range(0, len(waits), size)]
    return min((part for part in parts if len(part) == size), key=_most, default=waits)


def _most(waits: Sequence[float]) -> float:
    return statistics.quantiles(waits, n=100)[98]


@contextmanager
def _mail_sink() -> Iterator[int]:
    """Take mails on a port, which is yielded."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("sink.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as sink:  # fmt: skip
        assert sink.stdin is not None
        assert sink.stdout is not None
        yield int(sink.stdout.readline())
        sink.stdin.close()


@contextmanager
def _worker(environment: Mapping[str, str]) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-m", "scanner.cli", "worker"],
        env={**os.environ, **environment, "PYTHONPATH": str(_ROOT)},
        cwd=_ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as worker:  # fmt: skip
        try:
            yield
        finally:
            os.killpg(worker.pid, signal.SIGTERM)
            worker.wait(60)


def _run(services: Services, seconds: int) -> dict[str, list[float]]:
    count = seconds * _A_SECOND
    issued = [_issue(services) for _ in range(count + _A_SECOND)]
    waker = CeleryWaker(make_app(services.settings))
    push = Push("bench", "0" * 64, "acme/app", "refs/heads/main", "0" * 40, "a" * 40, False)
    scan_id, _ = services.intake.accept(push, None)
    with services.engine.begin() as connection:
        connection.execute(scans.update().values(state="done"))  # nothing is to be fetched
        scan = connection.execute(select(scans).where(scans.c.id == scan_id)).mappings().one()
    # The first second warms the worker up, and does not count.
    for place, secret in enumerate(issued[:_A_SECOND]):
        _hit(services, waker, dict(scan), secret, place)
    _wait(services, _A_SECOND)
    began = time.perf_counter()
    for place, secret in enumerate(issued[_A_SECOND:], _A_SECOND):
        due = began + (place - _A_SECOND) / _A_SECOND
        time.sleep(max(0.0, due - time.perf_counter()))  # the rate is the load
        _hit(services, waker, dict(scan), secret, place)
    _wait(services, count + _A_SECOND)
    with services.engine.connect() as connection:
        rows = connection.execute(text(_WAITS)).all()[_A_SECOND:]
    return {
        name: [float(row[number]) for row in rows]
        for number, name in enumerate(("revoked", "decided"))
    }


def _issue(services: Services) -> Secret:
    pattern = next(p for p in services.matcher_ruleset.patterns if p.id == _PATTERN)
    secret = generate(pattern)
    with services.database.begin() as connection:
        ensure_owner(connection, "Contoso", "Ada", "ada@contoso.example", None)
    services.store.issue(
        secret, organisation="Contoso", owner="Ada", name="bench", pattern=_PATTERN,
        mask=mask(pattern, secret.reveal()), scopes=(), days=30, actor="bench",
    )  # fmt: skip
    return secret


def _hit(
    services: Services, waker: CeleryWaker, scan: dict[str, object], secret: Secret, place: int
) -> None:
    candidate = Candidate(_PATTERN, "azure-devops", 0, 84, secret, Checksum.VALID, "…")
    found = LocatedCandidate(candidate, Place(f"{place:040x}", ObjectKind.BLOB, "a.env", "c" * 40))
    (lookup,) = services.store.find([secret])
    with services.database.begin() as connection:
        services.judge.record(connection, scan, Judged((Finding(found, lookup, "a.env"),)))
    waker.wake(RESPOND)


def _wait(services: Services, count: int) -> None:
    deadline = time.monotonic() + _MOST_SECONDS
    revoked = (
        select(func.count())
        .select_from(audit_events)
        .where(audit_events.c.action == AuditAction.TOKEN_REVOKED.value)
    )
    while time.monotonic() < deadline:
        with services.engine.connect() as connection:
            if connection.execute(revoked).scalar_one() >= count:
                return
        time.sleep(0.1)  # other processes work
    raise SystemExit(f"The worker did not end {count} leaks in {_MOST_SECONDS:g} s.")
