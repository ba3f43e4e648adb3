"""A webhook over real HTTP: durable before it is answered, bounded, and nothing is believed that
lies outside the signature."""

from __future__ import annotations

import json
import logging
import select as io_select
import socket
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from sqlalchemy import event as hooks
from sqlalchemy import select

from scanner.db.schema import scans
from scanner.sources.github_push import MAX_BODY
from scanner.web.serving import PromptProtocol
from scanner.worker import SCAN
from tests.databases import migrate, on_postgresql, on_sqlite
from tests.servers.postgres import PostgresServer

Event = Callable[..., bytes]
PATH = "/webhooks/github"


@pytest.fixture
def new(site) -> Callable[[], int]:
    """How many scans have come since the test began."""
    before = site.accepted()
    return lambda: site.accepted() - before


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def head(site, body: bytes, *headers: str) -> bytes:
    """A signed request's head with exactly these headers for its length."""
    lines = [
        f"POST {PATH} HTTP/1.1", "Host: x", "Connection: close",
        f"X-Hub-Signature-256: {site.sign(body)}", *headers, "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode()


def test_a_push_is_a_row_and_a_wake_when_it_is_answered(serve, event: Event) -> None:
    with serve() as site:
        answer = site.deliver(event(), headers={"X-GitHub-Delivery": "one"})
        assert (answer.status_code, answer.json()["duplicate"]) == (202, False)
        with site.services.database.connect() as connection:
            (row,) = connection.execute(select(scans)).all()
        assert (row.id, row.hook, row.delivery) == (answer.json()["scan"], "acme", "one")
        (wake,) = (site.data_dir / "broker" / "queue").glob("*.msg")
        assert json.loads(wake.read_bytes())["headers"]["task"] == SCAN


def test_headers_outside_the_signature_are_not_believed(site, new, event: Event) -> None:
    for kind in ("ping", "issues", "", "push"):
        answer = site.deliver(event(), headers={"X-GitHub-Event": kind, "X-GitHub-Delivery": "a"})
        assert (answer.status_code, answer.json()["duplicate"]) == (202, False)
    assert new() == 4  # one delivery id, four bodies
    ping = site.deliver(b'{"zen": "Be.", "hook_id": 1}', headers={"X-GitHub-Event": "push"})
    assert (ping.status_code, ping.json()) == (200, {"pong": True})
    other = site.deliver(b'{"action": "opened"}', headers={"X-GitHub-Event": "push"})
    assert (other.status_code, other.json()) == (200, {"ignored": "not a push"})
    body = event()
    first = site.deliver(body, headers={"X-GitHub-Delivery": "b"}).json()
    again = site.deliver(body, headers={"X-GitHub-Delivery": "c"}).json()
    assert again == {"scan": first["scan"], "duplicate": True}
    assert new() == 5


def test_one_body_from_many_at_once_is_one_scan(site, new, event: Event) -> None:
    body = event()
    with ThreadPoolExecutor(8) as pool:
        answers = [answer.json() for answer in pool.map(site.deliver, [body] * 16)]
    assert len({answer["scan"] for answer in answers}) == 1
    assert sorted(answer["duplicate"] for answer in answers) == [False] + [True] * 15
    assert new() == 1


def test_a_hook_speaks_for_its_own_repositories_only(site, new, event: Event) -> None:
    foreign = event(repository={"full_name": "globex/app"})
    answer = site.deliver(foreign)
    assert (answer.status_code, list(answer.json())) == (403, ["error"])
    assert new() == 0
    second = site.hooks[1]["secrets"][0]
    assert site.deliver(foreign, secret=second).status_code == 202
    assert site.deliver(event(), secret=second).status_code == 403


def test_what_is_not_signed_changes_nothing(site, new, event: Event) -> None:
    body = event()
    for signature in ("", "sha256=", site.sign(body, "another secret"), site.sign(body + b" ")):
        headers = {"X-Hub-Signature-256": signature}
        assert site.http.post(PATH, content=body, headers=headers).status_code == 401
    assert site.http.post(PATH, content=body).status_code == 401
    assert new() == 0


# Bounds.


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_the_greatest_size_is_taken_and_one_byte_more_is_not(
    site, new, event: Event, chunked: bool
) -> None:
    small = event(filler="")
    largest = small.replace(b'"filler": ""', b'"filler": "%s"' % (b"x" * (MAX_BODY - len(small))))
    assert len(largest) == MAX_BODY
    for body, expected in ((largest, 202), (largest + b" ", 413)):
        pieces = (body[at : at + (1 << 20)] for at in range(0, len(body), 1 << 20))
        answer = site.http.post(
            PATH,
            content=pieces if chunked else body,
            headers={"X-Hub-Signature-256": site.sign(body)},
        )
        assert answer.status_code == expected
    assert new() == 1


def test_a_body_that_is_announced_too_large_is_not_waited_for(site, new) -> None:
    answer = site.raw(head(site, b"", f"Content-Length: {MAX_BODY + 1}"))
    assert status(answer) == 413
    assert new() == 0


@pytest.mark.parametrize(
    "length", ["-1", "x", "1e3", "0x10", "1_0", "٣", "", "9" * 19, "9" * 5_000, "5, 6", " "]
)
def test_a_length_that_is_no_length_is_refused(site, new, event: Event, length: str) -> None:
    body = event()
    answer = site.raw(head(site, body, f"Content-Length: {length}") + body)
    assert 400 <= status(answer) < 500
    assert new() == 0


def test_a_length_that_lies_cannot_smuggle_a_push_in(site, new, event: Event) -> None:
    body = event()
    short = site.raw(head(site, body, "Content-Length: 10") + body)
    assert status(short) == 401
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert status(site.raw(head(site, body, "Transfer-Encoding: chunked") + chunk)) == 202
    both = head(site, body, "Content-Length: 10", "Transfer-Encoding: chunked")
    assert status(site.raw(both + chunk)) in {202, 400}  # chunked counts, or it is refused
    twice = head(site, body, f"Content-Length: {len(body)}", "Content-Length: 1")
    assert status(site.raw(twice + body)) == 400
    for broken in (b"zz\r\n", b"-1\r\n", b"5\r\nabc"):
        with_broken = head(site, body, "Transfer-Encoding: chunked") + broken + b"\r\n" * 3
        assert status(site.raw(with_broken)) == 400
    assert new() == 1


def test_a_slow_client_holds_nobody_up(site, new, event: Event) -> None:
    body = event()
    with socket.create_connection(site.address, timeout=30) as slow:
        slow.sendall(head(site, body, f"Content-Length: {len(body)}") + body[:20])
        assert site.deliver(event()).status_code == 202
        assert site.get("/readyz").status_code == 200
        assert new() == 1
        for at in range(20, len(body)):
            slow.sendall(body[at : at + 1])
        assert status(slow.recv(65_536)) == 202
    assert new() == 2


def test_a_body_that_does_not_come_in_time_is_refused(serve, event: Event) -> None:
    with serve(body_timeout=0.2) as site:
        body = event()
        begun = head(site, body, f"Content-Length: {len(body)}") + body[:20]
        answer = site.raw(begun)
        assert status(answer) == 408
        assert b"The body did not come within 0.2 seconds." in answer
        assert site.accepted() == 0
        assert site.deliver(body).status_code == 202


@pytest.mark.parametrize("signature", ["", "X-Hub-Signature-256: sha256=abc\r\n"])
def test_nobody_sends_megabytes_without_a_signature(site, new, signature: str) -> None:
    """It is refused before any of it is received."""
    begun = (
        f"POST /webhooks/github HTTP/1.1\r\nHost: x\r\n{signature}"
        "Content-Type: application/json\r\nContent-Length: 20000000\r\n\r\n"
    )
    answer = site.raw(begun.encode())
    assert status(answer) == 401
    assert b"missing or malformed" in answer
    assert new() == 0


def test_large_bodies_leave_room_for_small_ones(site, new, event: Event) -> None:
    """Whoever can write a header can sign nothing, and must not use up the memory."""
    size = 24 << 20
    with ExitStack() as opened:
        answers = []
        for _ in range(5):
            large = opened.enter_context(socket.create_connection(site.address, timeout=30))
            large.sendall(head(site, b"{}", f"Content-Length: {size}"))
            with suppress(ConnectionError):  # it may be refused before the end
                for _ in range(23):
                    large.sendall(b" " * (1 << 20))
                large.setblocking(False)
            answers.append(large)
        assert site.deliver(event()).status_code == 202
        (refused,) = io_select.select(answers, [], [], 30)[0]
        assert status(refused.recv(65_536)) == 503
    assert new() == 1
    assert site.deliver(event(commits=[{"message": "x" * (1 << 20)}])).status_code == 202
    assert new() == 2


@pytest.mark.parametrize("said", [b"", b"POST /webhooks/github HT"])
def test_who_asks_for_nothing_is_not_waited_for(
    serve, event: Event, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PromptProtocol, "head_seconds", 0.2)
    with serve() as site, ExitStack() as opened:
        silent = [
            opened.enter_context(socket.create_connection(site.address, timeout=30))
            for _ in range(20)
        ]
        for one in silent:
            one.sendall(said)
        assert [one.recv(100) for one in silent] == [b""] * 20
        body = event()
        slow = opened.enter_context(socket.create_connection(site.address, timeout=30))
        slow.sendall(head(site, body, f"Content-Length: {len(body)}"))
        time.sleep(0.7)  # longer than for its head, which has come
        slow.sendall(body)
        assert status(slow.recv(65_536)) == 202


def test_a_large_body_is_judged_as_a_small_one_is(site, new, event: Event) -> None:
    # It is judged elsewhere, so as to keep nobody waiting.
    body = event(commits=[{"message": "x" * (1 << 20)}])
    assert site.deliver(body, secret="another secret").status_code == 401
    assert site.deliver(event(ref="x" * (1 << 20))).status_code == 400
    assert new() == 0
    assert site.deliver(body).status_code == 202
    assert new() == 1


def test_a_client_that_goes_away_leaves_nothing(
    serve, event: Event, caplog: pytest.LogCaptureFixture
) -> None:
    with serve() as site:
        body = event()
        whole = head(site, body, f"Content-Length: {len(body)}") + body
        for cut in (10, len(whole) - len(body), len(whole) - 1):
            with socket.create_connection(site.address, timeout=30) as connection:
                connection.sendall(whole[:cut])
        assert site.deliver(event()).status_code == 202
        assert site.accepted() == 1
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


# What Patrol leans on is away.


def sentence(answer) -> str:
    (error,) = answer.json().values()
    return str(error)


def check_that_nothing_is_accepted(site, body: bytes) -> None:
    answer = site.deliver(body)
    assert answer.status_code == 503
    assert sentence(answer).endswith("nothing was accepted, send it again.")


@on_sqlite
@pytest.mark.parametrize("broken", ["gone", "garbage", "folder"])
def test_without_its_database_file_nothing_is_accepted(
    serve, event: Event, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serve() as site:
        body, api = event(), site.services.settings.api_bearer
        raw, _ = site.issue()
        file, aside = site.data_dir / "patrol.db", site.data_dir / "aside.db"
        site.services.engine.dispose()  # closes what is open: the file is whole
        file.rename(aside)
        if broken == "garbage":
            file.write_bytes(b"no database, whatever it was " * 100)
        elif broken == "folder":
            file.mkdir()
        check_that_nothing_is_accepted(site, body)
        for path, bearer in (
            ("/api/v1/leaks", api),
            ("/api/v1/audit", api),
            ("/api/v1/whoami", raw),
        ):
            assert site.get(path, bearer).status_code == 503, path
        assert site.get("/api/v1/leaks").status_code == 401
        assert site.get("/healthz").status_code == 200
        assert site.get("/readyz").status_code == 503
        assert site.wakes() == 0
        site.services.engine.dispose()
        restore(file, aside)
        site.readiness()
        answer = site.deliver(body)
        assert (answer.status_code, answer.json()["duplicate"]) == (202, False)
        assert site.accepted() == 1
    assert "did not answer" in caplog.text
    assert raw not in caplog.text
    assert "Traceback" not in caplog.text


def restore(file: Path, aside: Path) -> None:
    if file.is_dir():
        file.rmdir()
    for left in file.parent.glob("patrol.db*"):
        left.unlink()
    aside.rename(file)


@on_postgresql
def test_while_postgresql_is_away_nothing_is_accepted(
    serve, event: Event, new_postgres: Callable[..., PostgresServer]
) -> None:
    server = new_postgres()
    migrate(url := server.url(server.create_database()))
    with serve(database_url=url) as site:
        body, before = event(), event()
        assert site.deliver(before).status_code == 202
        server.kill()
        check_that_nothing_is_accepted(site, body)
        assert site.get("/api/v1/leaks", site.services.settings.api_bearer).status_code == 503
        assert site.get("/healthz").status_code == 200
        site.readiness("database")
        server.start()
        site.readiness()
        assert site.deliver(body).json()["duplicate"] is False
        assert site.deliver(before).json()["duplicate"] is True
        assert site.accepted() == 2


@on_sqlite
def test_while_another_holds_the_database_nothing_is_accepted(serve, event: Event) -> None:
    with serve() as site:
        # Waiting for the lock is the engine's business; here it may be short.
        hooks.listen(
            site.services.engine,
            "connect",
            lambda connection, _: connection.execute("PRAGMA busy_timeout = 50"),
        )
        site.services.engine.dispose()
        body = event()
        holder = sqlite3.connect(site.data_dir / "patrol.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        check_that_nothing_is_accepted(site, body)
        assert site.get("/readyz").status_code == 200  # reading goes on
        holder.execute("COMMIT")
        holder.close()
        assert site.deliver(body).json()["duplicate"] is False
        assert site.accepted() == 1


def test_without_its_broker_a_push_is_accepted_all_the_same(serve, event: Event) -> None:
    with serve() as site:
        (site.data_dir / "broker" / "queue").rmdir()
        assert site.deliver(event()).status_code == 202
        assert site.accepted() == 1


def test_without_redis_a_push_is_accepted_all_the_same(serve, event: Event) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with serve(broker_url=url) as site:
            assert site.deliver(event()).status_code == 202
            assert site.accepted() == 1


# What comes in does not go out again.


def test_no_answer_repeats_what_was_sent(site, event: Event, token: Callable[[], str]) -> None:
    secret = token()
    headers = dict.fromkeys(("X-GitHub-Delivery", "X-GitHub-Event", "User-Agent"), secret)
    bodies = [
        event(**{field: secret})
        for field in ("ref", "before", "after", "forced", "repository", "note")
    ]
    bodies += [
        event(ref=f"refs/heads/{secret}"),
        event(repository={"full_name": f"acme/{secret}"}),
        event(repository={"full_name": f"evil/{secret}"}),
        secret.encode(),
        json.dumps([secret]).encode(),
        json.dumps({"zen": secret, "hook_id": secret}).encode(),
    ]
    answers = [site.deliver(body, headers=headers) for body in bodies]
    answers += [site.deliver(body, secret="wrong", headers=headers) for body in bodies]
    answers += [site.get(f"/{secret}", secret), site.get(f"/api/v1/leaks/{secret}", secret)]
    answers += [site.get(f"/api/v1/leaks/{secret}", site.services.settings.api_bearer)]
    assert {answer.status_code for answer in answers} == {200, 202, 400, 401, 403, 404}
    for answer in answers:
        assert secret not in answer.text + repr(answer.headers)
