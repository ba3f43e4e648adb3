"""Digests from a CSV file: what is taken, what is refused, and what happens when it is stopped."""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scanner.db.schema import owners, tokens
from scanner.errors import FinalError
from scanner.keyring import Key
from scanner.model import Secret, Validity
from scanner.stores.wrapping import wrap_digests

ROOT = Path(__file__).parents[2]
K1, K2, ACME = (Key(name, name.encode() * 20) for name in ("k1", "k2", "acme"))
ACTOR = "test"
HEAD = ("digest", "name", "organisation", "owner", "email")


def sha256(secret: Secret) -> str:
    return hashlib.sha256(secret.reveal()).hexdigest()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a CSV file of rows."""

    def build(rows: Sequence[Sequence[str]], head: Sequence[str] = HEAD) -> Path:
        path = tmp_path / "tokens.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([head, *rows])
        return path

    return build


def run(desk, path: Path, **options: Any) -> Any:
    return desk.importer.run(path, default_pattern=desk.pattern, actor=ACTOR, **options)


def row(secret: Secret, name: str = "ci") -> list[str]:
    return [sha256(secret), name, "Acme", "Ada", "other@acme.example"]


def test_an_imported_token_is_known_and_stored_under_the_pepper(desk, new_secret, write) -> None:
    secret = new_secret()
    path = write(
        [
            [
                sha256(secret).upper(), "ci", "Globex", "Grace", "grace@globex.example", "sha256",
                desk.pattern, "read write", "npm_…abcd", "2020-01-31", "2999-01-31T12:00:00+01:00",
                "T-77",
            ]
        ],
        (*HEAD, "algorithm", "pattern", "scopes", "mask", "valid_from", "valid_to", "external_id"),
    )  # fmt: skip
    outcome = run(desk, path)
    assert (outcome.imported, outcome.known, outcome.rejected) == (1, 0, 0)
    (lookup,) = desk.store.find([secret])
    record = lookup.token
    assert (lookup.validity, record.name, record.organisation) == (Validity.ACTIVE, "ci", "Globex")
    assert (record.owner_name, record.owner_email) == ("Grace", "grace@globex.example")
    assert (record.scopes, record.mask) == (("read", "write"), "npm_…abcd")
    assert record.valid_from == datetime(2020, 1, 31, tzinfo=UTC)
    assert record.valid_to == datetime(2999, 1, 31, 11, tzinfo=UTC)
    assert desk.tokens.get(record.token_id)["external_id"] == "T-77"
    (stored,) = desk.rows(tokens)
    assert stored["key_id"] == "sha256>k1"
    assert stored["digest"] != sha256(secret)
    started, finished = desk.events("import.started", "import.finished")
    assert started["data"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert finished["data"] == {
        **started["data"], "imported": 1, "known": 0, "rejected": 0, "raw": 0, "met": 0,
    }  # fmt: skip
    assert not path.with_name("tokens.csv.rejected").exists()


def test_digests_of_the_issuers_own_key(desk, new_secret, write) -> None:
    secret = new_secret()
    digest = hmac.new(ACME.value, secret.reveal(), hashlib.sha256).hexdigest()
    head = (*HEAD, "algorithm")
    assert run(desk, write([[digest, *row(secret)[1:], "hmac-sha256:acme"]], head)).imported == 1
    assert desk.validity(secret) is Validity.ACTIVE
    assert [one["key_id"] for one in desk.rows(tokens)] == ["acme>k1"]
    for algorithm in ("hmac-sha256:k1", "hmac-sha256:nobody", "md5", "hmac-sha256"):
        assert run(desk, write([[digest, *row(secret)[1:], algorithm]], head)).rejected == 1


def test_an_import_runs_again_without_a_trace(desk, new_secret, write) -> None:
    secrets = [new_secret() for _ in range(5)]
    path = write([row(secret) for secret in (*secrets, secrets[0])])
    first, second = run(desk, path), run(desk, path)
    assert (first.imported, first.known) == (5, 1)
    assert (second.imported, second.known) == (0, 6)
    assert [desk.validity(secret) for secret in secrets] == [Validity.ACTIVE] * 5
    (ada,) = [one for one in desk.rows(owners) if one["name"] == "Ada"]
    assert ada["email"] == "ada@acme.example"  # as he was


def test_it_is_known_under_a_newer_pepper_too(desk, new_secret, write) -> None:
    path = write([row(new_secret()), row(new_secret())])
    run(desk, path)
    desk.ring.keys = (K2, K1)
    assert run(desk, path).known == 2
    wrap_digests(desk.engine, desk.peppers, actor=ACTOR)
    assert run(desk, path).known == 2
    assert {one["key_id"] for one in desk.rows(tokens)} == {"sha256>k1>k2"}


def test_a_leak_seen_before_is_met(desk, new_secret, write) -> None:
    seen_once, seen_later, unseen = (new_secret() for _ in range(3))
    desk.leak(seen_once)
    desk.ring.keys = (K2, K1)
    wrap_digests(desk.engine, desk.peppers, actor=ACTOR)
    desk.leak(seen_once, seen_later)
    outcome = run(desk, write([row(secret) for secret in (seen_once, seen_later, unseen)]))
    assert (outcome.imported, outcome.met) == (3, 3)
    assert sorted(one["sightings"] for one in desk.incidents()) == [1, 2]


def test_a_dry_run_changes_nothing(desk, new_secret, write) -> None:
    known, new = new_secret(), new_secret()
    run(desk, write([row(known)]))
    before = desk.rows(tokens), desk.events()
    path = write([row(known), row(new), ["x", "", "", "", ""]])
    outcome = run(desk, path, dry_run=True)
    assert (outcome.imported, outcome.known, outcome.rejected) == (1, 1, 1)
    assert (desk.rows(tokens), desk.events()) == before
    assert not path.with_name("tokens.csv.rejected").exists()


def test_bad_rows_are_set_apart_with_their_lines(desk, new_secret, write) -> None:
    good = [new_secret() for _ in range(2)]
    digest = sha256(new_secret())
    bad = [
        (["abc", "a", "Acme", "", ""], "64 hex digits"),
        (["g" * 64, "a", "Acme", "", ""], "64 hex digits"),
        ([digest, "", "Acme", "", ""], "the name is empty"),
        ([digest, "x" * 201, "Acme", "", ""], "longer than 200"),
        ([digest, "a", "", "", ""], "the organisation is empty"),
        ([digest, "a", "Acme", "Ada", "nonsense"], "no e-mail address"),
        ([digest, "a", "Acme"], "3 columns, not 5"),
        ([digest, "a", "Acme", "", "", ""], "6 columns, not 5"),
        ([digest, "a\u202eb", "Acme", "", ""], "turns text round"),
        ([digest, '=HYPERLINK("http://x")', "Acme", "", "@"], "no e-mail address"),
    ]
    path = write([row(good[0]), *(cells for cells, _ in bad), row(good[1])])
    outcome = run(desk, path)
    assert (outcome.imported, outcome.rejected, outcome.raw) == (2, len(bad), 1)
    refused = path.with_name("tokens.csv.rejected")
    assert outcome.rejected_file == refused
    assert stat.S_IMODE(refused.stat().st_mode) == 0o600
    with refused.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["line"]) for line in lines] == list(range(3, 3 + len(bad)))
    for line, (_, said) in zip(lines, bad, strict=True):
        assert said in line["reason"], line
    assert lines[-1]["name"].startswith("'=")
    for line in lines:
        assert not any(str(cell).startswith(("=", "+", "-", "@")) for cell in line.values())
    assert run(desk, write([row(good[0])])).rejected_file is None
    assert not refused.exists()  # it was of an earlier run


@pytest.mark.parametrize("column", ["digest", "name", "organisation", "owner", "email"])
def test_a_raw_token_is_refused_without_a_word_of_it(
    desk, new_secret, write, column: str, caplog
) -> None:
    good, raw = new_secret(), new_secret()
    cells = row(raw)
    cells[HEAD.index(column)] = raw.reveal().decode()
    path = write([cells, row(good)])
    outcome = run(desk, path)
    assert (outcome.imported, outcome.rejected, outcome.raw) == (1, 1, 1)
    assert outcome.rejected_file is not None
    kept = [outcome.rejected_file.read_text(), json.dumps(desk.events()), caplog.text]
    kept += [json.dumps(desk.rows(table), default=str) for table in (tokens, owners)]
    text = raw.reveal().decode()
    assert not any(text[at : at + 8] in kept_text for kept_text in kept for at in range(4, 32))


@pytest.mark.parametrize(
    "head",
    [
        ("digest", "name"), ("digest", "name", "organisation", "colour"), (),
        ("digest", "name", "organisation", "name"), ("\0",),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_refused(desk, write, head: tuple[str, ...]) -> None:
    with pytest.raises(FinalError, match="must name the columns: digest, name, organisation"):
        run(desk, write([], head))


def test_a_file_is_read_whatever_is_in_it(desk, tmp_path: Path, new_secret) -> None:
    secret = new_secret()
    line = ",".join(row(secret)).encode()
    path = tmp_path / "any.csv"
    path.write_bytes(
        b"\xef\xbb\xbf" + ",".join(HEAD).encode() + b"\r\n\r\n"
        + b'"unclosed\x00,"quote" here,x\r\n' + b"\xff\xfe,a,b,c,d\r\n" + line
    )  # fmt: skip
    outcome = run(desk, path)
    assert outcome.imported == 1
    assert outcome.rejected >= 1
    assert desk.validity(secret) is Validity.ACTIVE


def test_an_import_that_was_killed_is_run_again(desk, tmp_path: Path, new_secret) -> None:
    secrets = [new_secret() for _ in range(40)]
    path = tmp_path / "many.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(HEAD)
        for number in range(30_000):
            digest = sha256(secrets[number // 750]) if number % 750 == 0 else f"{number:064x}"
            rows.writerow([digest, f"t{number}", "Acme", f"o{number % 50}", ""])
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("import_file.py"), desk.url, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "10000\n"  # a batch is committed
        os.kill(process.pid, signal.SIGKILL)
    some = len(desk.rows(tokens))
    assert some in (10_000, 20_000)
    assert desk.events("import.finished") == []
    outcome = run(desk, path)
    assert (outcome.imported, outcome.known) == (30_000 - some, some)
    assert {found.validity for found in desk.store.find(secrets)} == {Validity.ACTIVE}
    assert len(desk.events("import.started")) == 2
    assert len(desk.events("import.finished")) == 1
