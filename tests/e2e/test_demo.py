"""End to end: real processes, real git http-backend, real SMTP; `patrol demo` reads it all back."""

from __future__ import annotations

import base64
import os
import re
import socket
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path) -> dict[str, str]:
    ports = {f"PATROL_{name}": str(free_port()) for name in ("PORT", "SMTP_PORT", "MAIL_PORT")}
    return {"PATH": os.environ["PATH"], "PATROL_DATA_DIR": str(folder), **ports}


def patrol(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scanner.cli", *arguments],
        env=env,
        cwd=Path(__file__).parents[1],
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


def test_no_file_of_the_run_holds_a_token_in_any_form(told, tmp_path: Path) -> None:
    """A token issued and leaked into a branch name and a path leaves nothing behind."""
    env, _, folder = told
    done = patrol(env, "tokens", "issue", "--organisation=Contoso", "--owner=Ada Byron", "--name=x")
    assert done.returncode == 0, done.stderr
    token = done.stdout.strip().encode()
    forms = [token, base64.b64encode(token)[:-4], token.hex().encode(), zlib.compress(token)]
    (tmp_path / "leak.txt").write_bytes(b"t = " + token)
    found = patrol(env, "scan", "dir", str(tmp_path), "--verify", "--format", "jsonl")
    assert found.returncode == 1
    assert '"validity": "active"' in found.stdout
    forms_seen = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        for form in forms
        if form in path.read_bytes()
    ]
    assert forms_seen == []
    assert token.decode() not in found.stdout
