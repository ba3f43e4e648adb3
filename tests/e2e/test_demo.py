"""End to end: real processes, real git http-backend, real SMTP; `patrol demo` reads it all back."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path) -> dict[str, str]:
    ports = {f"PATROL_{name}": str(free_port()) for name in ("PORT", "SMTP_PORT", "MAIL_PORT")}
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PATROL_DATA_DIR": str(folder),
        **ports,
    }


def patrol(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scanner.cli", *arguments],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str, Path]:
    folder = tmp_path_factory.mktemp("demo") / "data"
    env = environment(folder)
    done = patrol(env, "demo", "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    return env, done.stdout, folder


def test_the_demo_shows_every_step_of_both_stories(told) -> None:
    _, output, _ = told
    steps = (
        "objects fetched",
        "candidate",
        "store says",
        "revoked",
        "audit written",
        "mail delivered",
        "used again",
    )
    for step in steps:
        assert len(re.findall(rf"^  [\d:.]+  {step}", output, re.MULTILINE)) == 2, step
    assert "push accepted" in output
    assert "by beat" in output


def test_the_readme_shows_what_it_prints(told) -> None:
    _, output, _ = told

    def normal(text: str) -> list[str]:
        text = re.sub(r"\b\d\d:\d\d:\d\d\.\d{3}\b", "TIME", text)
        text = re.sub(r"\b\d{20}-[0-9a-f]{8}\b", "MAIL", text)
        text = re.sub(r"\b[0-9a-f]{10}\b|(?<=-)[0-9a-f]{6}\b", "ID", text)
        text = re.sub(r"127\.0\.0\.1:\d+|\d+ bytes", "HERE", text)
        return [line.strip() for line in text.splitlines() if line.strip()]

    readme = (ROOT / "README.md").read_text("utf-8")
    shown = normal(readme[readme.index("    1. A push leaks") : readme.index("Then the mail")])
    printed = normal(output)
    begin, cut = printed.index(shown[0]), shown.index("…")
    assert shown[:cut] == printed[begin : begin + cut]
    assert shown[cut + 1 :] == printed[-1:]
    assert max(map(len, output.splitlines())) <= 80


def test_one_incident_one_mail_a_token_and_a_whole_trail(told) -> None:
    env, _, folder = told
    with sqlite3.connect(folder / "patrol.db") as database:
        assert database.execute("SELECT count(*) FROM incidents").fetchone() == (2,)
        assert database.execute("SELECT count(*), sum(state = 'done') FROM outbox").fetchone() == (
            2,
            2,
        )
    database.close()
    assert len(list((folder / "mail").glob("*.eml"))) == 2
    done = patrol(env, "audit", "verify")
    assert done.returncode == 0
    assert "The trail is whole." in done.stdout


def test_a_changed_audit_event_is_found(told, tmp_path: Path) -> None:
    env, _, folder = told
    copy = tmp_path / "copy.db"
    with sqlite3.connect(folder / "patrol.db") as source, sqlite3.connect(copy) as target:
        source.backup(target)
        with pytest.raises(sqlite3.IntegrityError, match="immutable"):
            target.execute("UPDATE audit_events SET actor = 'nobody'")
        target.execute("DROP TRIGGER audit_events_no_update")
        target.execute("UPDATE audit_events SET actor = 'nobody'")
        target.commit()
    source.close()
    target.close()
    done = patrol({**env, "PATROL_DATABASE_URL": f"sqlite:///{copy}"}, "audit", "verify")
    assert done.returncode == 1
    assert "was changed" in done.stdout


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    env = environment(tmp_path / "data")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(env["PATROL_PORT"])))
        taken.listen()
        done = patrol(env, "demo", "--once")
    assert done.returncode == 2
    assert "PATROL_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_events_are_sealed_within_two_seconds(told) -> None:
    _, _, folder = told
    with sqlite3.connect(folder / "patrol.db") as database:
        late, count = database.execute(
            "SELECT max(sealed_at - at), count(*) FROM audit_events "
            "JOIN audit_seals ON event_id = id "
            "WHERE at >= (SELECT min(received_at) FROM scans)"  # the workers are up
        ).fetchone()
    database.close()
    assert count >= 9
    assert late <= 2_000


def test_the_webhook_leads_to_revocation_within_a_second(told) -> None:
    _, _, folder = told
    with sqlite3.connect(folder / "patrol.db") as database:
        (took,) = database.execute(
            "SELECT revoked_at - received_at FROM incidents "
            "JOIN scans ON scans.id = correlation_id WHERE source = 'github-webhook'"
        ).fetchone()
    database.close()
    assert 0 < took <= 5_000  # one second where the machine is free: docs/benchmarks.md


def test_no_data_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    for folder in (tmp_path / "file" / "data", Path("/proc/patrol")):
        done = patrol(environment(folder), "demo", "--once")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "PATROL_DATA_DIR" in done.stderr
        assert str(folder) in done.stderr


@pytest.mark.parametrize("name", ["DATABASE_URL", "BROKER_URL", "SMTP_URL"])
def test_it_reaches_no_real_service(tmp_path: Path, name: str) -> None:
    env = environment(tmp_path / "data") | {f"PATROL_{name}": "smtp://mail.example"}
    done = patrol(env, "demo", "--once")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"unset PATROL_{name}" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_missing_git_is_one_sentence(tmp_path: Path) -> None:
    done = patrol(environment(tmp_path / "data") | {"PATH": str(tmp_path)}, "demo", "--once")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "patrol: git is not installed; on Debian: apt install git\n"
    assert not (tmp_path / "data").exists()


def children_of(parent: int) -> list[str]:
    """Process ids, from /proc: a bare machine has no pgrep."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        if int(fields[1]) == parent:
            found.append(stat.parent.name)
    return found


def test_afterwards_it_stays_up_and_ctrl_c_stops_it(tmp_path: Path) -> None:
    env = environment(tmp_path / "data")
    running = subprocess.Popen(
        [sys.executable, "-m", "scanner.cli", "demo"],
        env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        output = []
        for line in running.stdout:
            output.append(line.rstrip())
            if line.startswith("Ctrl-C"):
                break
        pages = re.findall(r"http://127\.0\.0\.1:\d+/\S*", "\n".join(output))
        assert f"http://127.0.0.1:{env['PATROL_MAIL_PORT']}/" in pages
        for page in {page for page in pages if "webhooks" not in page}:
            assert httpx2.get(page, trust_env=False).status_code == 200
        children = children_of(running.pid)
        assert len(children) >= 4
        running.send_signal(signal.SIGINT)
        rest, _ = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 0
    assert rest.strip().splitlines()[-1] == "Stopping."
    assert [pid for pid in children if Path("/proc", pid).exists()] == []
    with sqlite3.connect(tmp_path / "data" / "patrol.db") as database:
        unsealed = database.execute(
            "SELECT (SELECT count(*) FROM audit_events) - (SELECT count(*) FROM audit_seals)"
        ).fetchone()
    database.close()
    assert unsealed == (0,)
