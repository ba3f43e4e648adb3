"""From a proved hit to its revocation, on a real Redis and a real, durable PostgreSQL.

A scan's last step is done here, fifty times a second: the verdict's transaction and the wake. Web
and beat's part is left out; the worker is the real one, in its processes. Times are the database's.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure
from sqlalchemy import func, select

sys.path.insert(0, str(Path(__file__).parents[2]))

from scanner.bootstrap import Services
from scanner.db.schema import incidents, scans, tokens
from scanner.db.upgrade import upgrade_database
from scanner.db.verdicts import Finding
from scanner.judge import Judged
from scanner.matcher.mask import mask
from scanner.model import Candidate, Checksum, LocatedCandidate, ObjectKind, Place, Secret
from scanner.patterns.generate import generate
from scanner.settings import load_settings
from scanner.sources.github_push import Push
from scanner.stores.sql import ensure_owner
from scanner.worker import RESPOND, CeleryWaker, make_app
from tests.servers.postgres import PostgresServer
from tests.servers.present import needs
from tests.servers.redis import RedisServer

_A_SECOND = 50
_PATTERN = "azure-devops-pat"
_ROOT = Path(__file__).parents[2]
_MOST_SECONDS = 60.0


def measure(quick: bool) -> list[Figure]:
    """Send hits for a while, and tell how long each token still worked."""
    with (
        tempfile.TemporaryDirectory() as folder,
        PostgresServer(needs("postgresql")) as postgres,
        RedisServer(needs("redis-server")) as redis,
    ):
        values = {
            "data_dir": folder,
            "database_url": postgres.url(postgres.create_database()),
            "broker_url": redis.url(),
        }
        services = Services(load_settings(values))
        upgrade_database(services.engine)
        environment = {f"PATROL_{name.upper()}": str(value) for name, value in values.items()}
        with subprocess.Popen(
            [sys.executable, "-m", "scanner.cli", "worker"],
            env={**os.environ, **environment, "PYTHONPATH": str(_ROOT)},
            cwd=_ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as worker:  # fmt: skip
            try:
                waits = _run(services, 1 if quick else 20)
            finally:
                os.killpg(worker.pid, signal.SIGTERM)
                worker.wait(60)
                services.engine.dispose()
    half, most = statistics.median(waits), statistics.quantiles(waits, n=100)[98]
    return [
        Figure(f"proved hit to revoked, {_A_SECOND}/s, median", f"{half:.0f} ms", "1"),
        Figure("… 99 of 100", f"{most:.0f} ms", f"{most / half:.1f}", "≤ 50 ms"),
    ]


def _run(services: Services, seconds: int) -> list[int]:
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
        rows = connection.execute(
            select(tokens.c.revoked_at - incidents.c.opened_at)
            .join(incidents, incidents.c.token_id == tokens.c.id)
            .order_by(incidents.c.opened_at)
        ).scalars()
        return list(rows)[_A_SECOND:]


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
    revoked = select(func.count()).select_from(tokens).where(tokens.c.state == "revoked")
    while time.monotonic() < deadline:
        with services.engine.connect() as connection:
            if connection.execute(revoked).scalar_one() >= count:
                return
        time.sleep(0.1)  # another process works
    raise SystemExit(f"The worker did not revoke {count} tokens in {_MOST_SECONDS:g} s.")
