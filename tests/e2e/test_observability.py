"""What an operator sees of a running house: one leak's lines, counts that add up, reasons."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select, update

from scanner.db.schema import heartbeats, incidents, outbox, scans
from tests.servers.redis import RedisServer

ZEROS = "0" * 40


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def house(build_house, wait) -> Any:
    """A house whose lines and counts are looked at; its worker writes all it has to say."""
    built = build_house(ready_grace_seconds=0, log_level="DEBUG")
    process = built.start("up")
    wait("patrol up", lambda: process.poll() is None and ready(built)[0] == 200)
    return built


def ready(house: Any) -> tuple[int, list[str]]:
    """What /readyz answers: its status and the codes of its reasons."""
    try:
        answer = httpx2.get(f"{house.url}/readyz", trust_env=False)
    except httpx2.TransportError:
        return 0, []
    return answer.status_code, [reason["code"] for reason in answer.json()["reasons"]]


def lines(house: Any) -> list[dict[str, Any]]:
    """Every line that any process logged: all of them are JSON."""
    files = sorted((house.data / "logs").glob("*.log"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def scrape(house: Any, **headers: str) -> httpx2.Response:
    bearer = {"Authorization": f"Bearer {house.services.settings.api_bearer}"}
    return httpx2.get(f"{house.url}/metrics", headers={**bearer, **headers}, trust_env=False)


def total(house: Any, name: str, /, **labels: str) -> float:
    """The sum of a series over all services."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(scrape(house).text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def push(house: Any, wait: Any, content: str, name: str = "acme/seen") -> str:
    """Push a file; returns the scan's id once it, its incidents and their mails are at rest."""
    repository = house.repository(name)
    after = repository.commit({"key.txt": content})
    repository.push()
    answer = house.deliver(house.push_event(name, ZEROS, after))
    assert answer.status_code == 202
    for table in (scans, incidents, outbox):
        working = select(table.c.id).where(table.c.state.in_(("pending", "running")))
        wait(f"every row of {table.name}", lambda working=working: not house.rows(working))
    return str(answer.json()["scan"])


def test_all_lines_of_a_leak_carry_one_id_from_the_webhook_to_the_mail(house, wait) -> None:
    token, _ = house.issue("traced")
    scan = push(house, wait, token)
    told = [line for line in lines(house) if line.get("correlation_id") == scan]
    story = [(line["role"].partition("-")[0], line["logger"], line["event"]) for line in told]
    (incident,) = house.rows(select(incidents).where(incidents.c.correlation_id == scan))
    (notice,) = house.rows(select(outbox).where(outbox.c.incident_id == incident["id"]))
    for expected in (
        ("web", "scanner.web.hooks", "push accepted"),
        ("web", "scanner.web.access", "request"),
        ("worker", "scanner.scan", "scan done"),
        ("worker", "scanner.respond.run", f"incident {incident['id']}: revoking"),
        ("worker", "scanner.respond.run", f"incident {incident['id']}: revoked"),
        ("worker", "scanner.respond.deliver", f"notice {notice['id']} is delivered"),
    ):
        assert story.count(expected) == 1, expected
    assert len({line["pid"] for line in told if line["role"] == "web"}) == 1
    (mail,) = house.mails(incident["id"])
    assert mail["X-Patrol-Correlation-Id"] == scan
    assert notice["id"] in mail["Message-ID"]
    assert token not in json.dumps(lines(house))


def test_two_leaks_at_once_are_told_apart(house, wait) -> None:
    wanted = {}
    bodies = []
    for name in ("acme/left", "acme/right"):
        token, token_id = house.issue()
        repository = house.repository(name)
        bodies.append(
            (name, token_id, house.push_event(name, ZEROS, repository.commit({"k": token})))
        )
        repository.push()
    for name, token_id, body in bodies:
        wanted[house.deliver(body).json()["scan"]] = (name, token_id)
    for _, token_id in wanted.values():
        sent = (
            select(outbox.c.id).join(incidents)
            .where(incidents.c.token_id == token_id, outbox.c.state == "done")
        )  # fmt: skip
        wait("its mail", lambda sent=sent: house.rows(sent))
    for scan, (name, token_id) in wanted.items():
        told = [line for line in lines(house) if line.get("correlation_id") == scan]
        assert {line["repository"] for line in told if "repository" in line} == {name}
        (incident,) = house.rows(select(incidents).where(incidents.c.token_id == token_id))
        assert incident["correlation_id"] == scan
        named = {
            match[1] for line in told if (match := re.match(r"incident (\w+):", line["event"]))
        }
        assert named == {incident["id"]}


def test_a_worker_says_what_its_parsing_child_gave_up(house) -> None:
    said = [line for line in lines(house) if line["event"] == "packs are read in a child process"]
    assert {line["role"] for line in said} == {"worker-scan-1", "worker-scan-2"}
    for line in said:
        kept = {line[name] for name in ("no_network", "no_files", "no_new_privileges")}
        assert line["level"] == ("info" if kept == {True} else "warning")


def test_every_line_is_json_and_says_who_speaks(house) -> None:
    roles = {line["role"].partition("-")[0] for line in lines(house)}
    assert {"web", "worker"} <= roles <= {"web", "worker", "beat", "mail"}
    for line in lines(house):
        assert {"time", "level", "role", "pid", "logger", "event"} <= line.keys()
        assert line["level"] in {"debug", "info", "warning"}, line


def test_a_scrape_takes_the_token_and_names_nobody(house, wait) -> None:
    token, token_id = house.issue("named-token", email="grace@contoso.example")
    push(house, wait, token, "acme/shown")
    url = f"{house.url}/metrics"
    assert httpx2.get(url, trust_env=False).status_code == 401
    wrong = {"Authorization": "Bearer wrong"}
    assert httpx2.get(url, headers=wrong, trust_env=False).status_code == 401
    answer = scrape(house)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    for hidden in (token, token_id, token[-4:], "named-token", "grace", "Contoso", "shown"):
        assert hidden not in answer.text
    opened = scrape(house, Accept="application/openmetrics-text; version=1.0.0")
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    assert opened.text.endswith("# EOF\n")


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for tasks in found for child in tasks.read_text().split()]


def worker_of(house: Any) -> int:
    """The worker's process id, from its own lines: the pool's processes are its children."""
    up = house._running["up"].pid
    lines_of = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in children(up)}
    (worker,) = [pid for pid, line in lines_of.items() if b"worker" in line]
    return worker


def test_a_hundred_pushes_are_a_hundred_though_the_pool_is_replaced(
    build_house, wait, redis_server: RedisServer
) -> None:
    house = build_house(broker_url=redis_server.url())
    process = house.start("up")
    wait("patrol up", lambda: process.poll() is None and house.is_ready())
    finished = select(scans.c.id).where(scans.c.state == "done")
    worker = worker_of(house)

    def pool() -> set[int]:
        return {pid for pid in children(worker) if b"worker" in cmdline(pid)}

    wait("the pool", lambda: len(pool()) == 5)
    for batch in (1, 2):
        for _ in range(50):
            # Nothing to fetch: the branch is gone.
            assert house.deliver(house.push_event("acme/gone", ZEROS, ZEROS)).status_code == 202
        wait("the pushes", lambda: len(house.rows(finished)) == 50 * batch)  # noqa: B023
        old = pool()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        wait("a new pool", lambda: len(pool() - old) == 5)  # noqa: B023
    assert total(house, "patrol_scans_total") == 100
    assert total(house, "patrol_scans_total", lane="webhooks", outcome="done") == 100
    assert total(house, "patrol_pushes_total", outcome="accepted") == 100
    assert total(house, "patrol_scan_stage_seconds_count", stage="total") == 100


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_what_was_done_is_counted_once(house, wait) -> None:
    names = {
        "patrol_incidents_opened_total": {"validity": "active"},
        "patrol_revocations_total": {"outcome": "revoked"},
        "patrol_notices_total": {"kind": "leak", "outcome": "delivered"},
        "patrol_candidates_total": {"pattern": "azure-devops-pat", "validity": "active"},
        "patrol_store_requests_total": {"operation": "revoke", "outcome": "answered"},
        "patrol_hit_to_revoked_seconds_count": {},
    }
    before = {name: total(house, name, **labels) for name, labels in names.items()}
    token, _ = house.issue()
    push(house, wait, token, "acme/counted")
    for name, labels in names.items():
        wait(name, lambda n=name, lb=labels: total(house, n, **lb) == before[n] + 1)
    for outcome, signature, body in (
        ("signature", "sha256=00", b"{}"), ("payload", "right", b"{"), ("ignored", "right", b"{}"),
    ):  # fmt: skip
        was = total(house, "patrol_pushes_total", outcome=outcome)
        house.deliver(body, signature=signature)
        assert total(house, "patrol_pushes_total", outcome=outcome) == was + 1
    assert total(house, "patrol_database_up") == 1
    assert total(house, "patrol_queue_ready") == 0
    assert total(house, "patrol_parked") == 0
    assert 0 <= total(house, "patrol_heartbeat_age_seconds", name="beat") < 30


def test_a_worker_that_hangs_makes_the_service_not_ready(house, wait) -> None:
    wait("readiness", lambda: ready(house) == (200, []))
    worker = worker_of(house)
    stopped = [worker, *children(worker)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        with house.services.database.begin() as connection:  # half a minute passes
            connection.execute(update(heartbeats).values(at=heartbeats.c.at - 31_000))
        wait("silence to be noticed", lambda: "worker" in ready(house)[1])
        assert ready(house)[0] == 503
    finally:
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)
    wait("readiness", lambda: ready(house) == (200, []))


def test_a_worker_alone_shows_its_own_counts(build_house, wait) -> None:
    port = free_port()
    house = build_house(metrics_port=port)
    process = house.start("worker")
    url = f"http://127.0.0.1:{port}/metrics"
    bearer = {"Authorization": f"Bearer {house.services.settings.api_bearer}"}

    def shown() -> str:
        assert process.poll() is None
        try:
            answer = httpx2.get(url, headers=bearer, trust_env=False)
        except httpx2.TransportError:
            return ""
        return answer.text if answer.status_code == 200 else ""

    text = str(wait("its counts", shown))
    assert 'patrol_scans_total{lane="webhooks",outcome="done",process="worker-1"} 0.0' in text
    assert "patrol_build_info" not in text
    assert httpx2.get(url, trust_env=False).status_code == 401
    elsewhere = f"http://127.0.0.1:{port}/elsewhere"
    assert httpx2.get(elsewhere, headers=bearer, trust_env=False).status_code == 404
    taken = house.patrol("beat")
    assert (taken.returncode, taken.stderr.splitlines()[-1]) == (
        2, f"patrol: Port {port} on 127.0.0.1 cannot be used (Address already in use); "
        "set PATROL_METRICS_PORT to a free one."
    )  # fmt: skip
