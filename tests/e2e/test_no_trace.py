"""Law 1: a raw token ends at verification. Nothing a run leaves behind holds one, in any form."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from scanner.db.dialect import SQLITE
from scanner.db.schema import incidents, metadata, outbox, scans, tokens
from tests.databases import Databases, on_sqlite
from tests.traces import FORMS, traces

ZEROS = "0" * 40
# Where tokens are put: in these they leak; in those they reach us, but no repository.
LEAKED = (
    "content", "kept", "path", "folder", "ref", "tag", "message", "author", "tag-message",
    "repository", "watched",
)  # fmt: skip
SENT = ("payload", "delivery", "refused", "malformed")


def everything(folder: Path, *, but: tuple[str, ...]) -> dict[str, bytes]:
    """Every file below `folder` but some folders, and every row of every database."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith(but):
            found[name] = path.read_bytes()
            if found[name].startswith(b"SQLite format 3"):
                with sqlite3.connect(path) as database:
                    found[f"{name} (rows)"] = "\n".join(database.iterdump()).encode()
                database.close()
    return found


def rows(house: Any) -> bytes:
    """Every value of every row, whatever the database."""
    return b"\n".join(
        value if isinstance(value, bytes) else str(value).encode()
        for table in metadata.sorted_tables
        for row in house.rows(select(table))
        for value in row.values()
    )


@on_sqlite  # the search is the same
@pytest.mark.parametrize("form", FORMS)
def test_the_search_finds_what_it_looks_for(house_token: str, form: str) -> None:
    values = FORMS[form](house_token.encode())
    for index, value in enumerate(values):
        plain, packed = {"f": b"before " + value + b" after"}, zlib.compress(b"x" + value)
        assert f"f: t, {form}" in traces(plain, {"t": house_token}), index
        assert f"f: t, {form}" in traces({"f": b"row" + packed}, {"t": house_token}), index
    assert traces({"f": b"nothing"}, {"t": house_token}) == []


@pytest.fixture(scope="module")
def quiet(build_house: Any) -> Any:
    return build_house()


@pytest.fixture(scope="module")
def house_token(quiet: Any) -> str:
    return str(quiet.issue()[0])


def leak_everywhere(house: Any, planted: dict[str, str]) -> tuple[str, list[tuple[str, str]]]:
    """Push a repository with a token wherever git has room for one; returns (its name, refs)."""
    leaky = house.repository(f"acme/{planted['repository']}")
    leaky.git("config", "user.name", planted["author"])
    files = {
        "key.txt": f"a = {planted['content']}\nb = {planted['kept']}\n",
        f"{planted['folder']}/{planted['path']}.txt": "x",
    }
    head = leaky.commit(
        files, f"Says {planted['message']}", f"--author={planted['author']} <a@acme.example>"
    )
    branch, tag = f"fix-{planted['ref']}", f"v-{planted['tag']}"
    leaky.push(f"HEAD:refs/heads/{branch}")
    leaky.git("tag", "-a", tag, "-m", f"Release {planted['tag-message']}")
    leaky.push(tag)
    named = [(f"refs/heads/{branch}", head), (f"refs/tags/{tag}", leaky.git("rev-parse", tag))]
    return leaky.name, named


def what_people_see(house: Any, clone: Path) -> dict[str, bytes]:
    """The output of every command and of the API."""
    shown = {}
    for arguments in (
        ("leaks", "list"), ("audit", "list", "--format=json"), ("tokens", "list"), ("doctor",),
        ("watch", "list"), ("scan", "dir", str(clone)), ("scan", "git", str(clone)),
        ("scan", "git", str(clone), "--format=jsonl", "--verify"),
    ):  # fmt: skip
        done = house.patrol(*arguments)
        assert done.stdout, done.stderr
        name = " ".join((*arguments[:2], *arguments[3:]))
        shown[name] = (done.stdout + done.stderr).encode()
    bearer = {"Authorization": f"Bearer {house.services.settings.api_bearer}"}
    for path in ("/api/v1/leaks", "/api/v1/audit"):
        shown[path] = httpx2.get(f"{house.url}{path}", headers=bearer, trust_env=False).content
    return shown


def test_a_run_leaves_no_token_behind(
    quiet: Any, wait: Any, databases: Databases, request: pytest.FixtureRequest
) -> None:
    house, planted, ids = quiet, {}, {}
    for name in LEAKED + SENT:
        organisation = "Fabrikam" if name == "kept" else "Contoso"
        planted[name], ids[name] = house.issue(name, organisation=organisation)
    house.patrol("policy", "set", "--organisation=Fabrikam", "--auto-revoke=off")
    repository, refs = leak_everywhere(house, planted)

    # With nobody to take them, wakes stay in the broker's files.
    house.start("web")
    wait("the web process", house.is_ready)
    said = {"commits": [{"message": planted["payload"]}], "pusher": {"name": planted["payload"]}}
    for ref, after in refs:
        body = house.push_event(repository, ZEROS, after, ref=ref, **said)
        answer = house.deliver(body, **{"X-GitHub-Delivery": planted["delivery"].encode()})
        assert answer.status_code == 202
    refused = house.push_event("acme/refused", ZEROS, refs[0][1], nonce=planted["refused"])
    assert house.deliver(refused, signature="sha256=" + "0" * 64).status_code == 401
    assert house.deliver(b"{" + planted["malformed"].encode()).status_code == 400
    assert len(list((house.data / "broker" / "queue").glob("*.msg"))) == len(refs)
    assert traces(everything(house.folder, but=("clones",)), planted) == []

    # A watched repository, and all the work.
    watched = house.repository("acme/watched")
    watched.commit({"k": planted["watched"]})
    watched.push()
    assert house.patrol("watch", "add", "acme/watched").returncode == 0
    for role in ("mail", "worker", "beat"):
        house.start(role)
    found = select(incidents.c.token_id)
    wait("every incident", lambda: len(house.rows(found)) == len(LEAKED))
    for table in (scans, incidents, outbox):
        working = select(table.c.id).where(table.c.state != "done")
        wait(f"every row of {table.name}", lambda working=working: not house.rows(working))
    assert {row["token_id"] for row in house.rows(found)} == {ids[name] for name in LEAKED}
    states = {row["name"]: row["state"] for row in house.rows(select(tokens))}
    assert {name for name in planted if states[name] == "revoked"} == {*LEAKED} - {"kept"}
    assert len(house.mails()) == len(LEAKED)
    assert house.status(planted["content"]) == 401
    shown = what_people_see(house, house.folder / "clones" / repository.replace("/", "-"))
    assert traces(shown, planted) == []

    # As it lies there after a crash, and after a clean stop.
    assert traces(everything(house.folder, but=("clones",)), planted) == []
    for role in ("web", "worker", "beat", "mail"):
        house.stop(role)
    left = everything(house.folder, but=("clones",))
    assert any(name.endswith(".eml") for name in left)
    if databases.kind == SQLITE:
        assert any(name.endswith("patrol.db (rows)") for name in left)
    else:
        left["PostgreSQL's log"] = request.getfixturevalue("postgres_server").log().encode()
    left["rows"] = rows(house)
    assert b"acme/watched" in left["rows"]
    assert traces(left, planted) == []
