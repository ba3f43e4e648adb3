"""The command line: run in this process, or in one of its own, with all that it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from scanner.bootstrap import Services
from scanner.cli import main
from scanner.db.dialect import SQLITE
from scanner.db.schema import incidents, scans
from scanner.db.verdicts import Finding, record_findings
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Ruleset
from scanner.model import LocatedCandidate, ObjectKind, Place
from scanner.settings import load_settings
from scanner.sources.github_push import Push
from tests.databases import Databases

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Shell:
    """Runs `patrol` with a data directory of its own."""

    def __init__(
        self, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.data, self._monkeypatch, self._capsys = data, monkeypatch, capsys
        for name in [name for name in os.environ if name.startswith("PATROL_")]:
            monkeypatch.delenv(name)
        self.set(PATROL_DATA_DIR=data, COLUMNS=80)

    def set(self, **variables: object) -> None:
        """Set environment variables for what is run from now on."""
        for name, value in variables.items():
            self._monkeypatch.setenv(name, str(value))

    def __call__(self, *arguments: object) -> Done:
        """Run a command in this process."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)

    def process(
        self, *arguments: object, stdin: bytes = b"", **variables: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "scanner.cli", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            input=stdin, capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    def services(self) -> Services:
        return Services(load_settings())

    def issue(self, *options: object) -> tuple[str, str]:
        """Issue a token; returns (the raw token, its id)."""
        done = self(
            "tokens", "issue", "--organisation=Contoso", "--owner=Ada",
            "--email=ada@contoso.example", "--name=ci", *options,
        )  # fmt: skip
        assert done.code == 0, done.err
        return done.out.strip(), done.err.split()[-1]

    def leak(self, raw: str, path: str = "src/config") -> str:
        """Record an issued token as a scan that found it does; returns the incident's id."""
        services = self.services()
        push = Push("default", raw[:40], "acme/app", "refs/heads/main", "0" * 40, "a" * 40, False)
        scan_id, _ = services.intake.accept(push, None)
        (candidate,) = services.matcher.scan(raw.encode())
        (lookup,) = services.store.find([candidate.secret])
        found = LocatedCandidate(candidate, Place("b" * 40, ObjectKind.BLOB, path, "a" * 40))
        with services.database.begin() as connection:
            row = connection.execute(select(scans).where(scans.c.id == scan_id)).mappings().one()
            key = services.settings.fingerprint_ring[0]
            record_findings(connection, row, [Finding(found, lookup, path)], [key])
            incident_id: str = connection.execute(select(incidents.c.id)).scalar_one()
        services.close()
        return incident_id


@pytest.fixture
def bare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """`patrol` on a machine where it never ran."""
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path / "data", monkeypatch, capsys)


@pytest.fixture
def patrol(bare: Shell, databases: Databases) -> Iterator[Shell]:
    """`patrol` with its database."""
    url = databases.new(bare.data)
    if databases.kind != SQLITE:  # which needs no setting: it lies in the data directory
        bare.set(PATROL_DATABASE_URL=url)
    assert bare("db", "upgrade") == Done(0, "The database is up to date.\n", "")
    yield bare
    databases.drop(url)


@pytest.fixture
def own_pattern(tmp_path: Path) -> Callable[..., Path]:
    """Write an issuer's own pattern file."""

    def write(path: Path, prefix: str = "acme_") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = prefix.strip("_")
        path.write_text(
            f'issuer = "{name}"\n\n[[pattern]]\nid = "{name}-token"\nname = "A {name} token"\n'
            f"regex = '{prefix}[A-Za-z0-9]{{32}}'\nmask_prefix = {len(prefix)}\n"
            f'generate = "{prefix}{{base62:32}}"\n'
        )
        return path

    return write


@pytest.fixture(scope="session")
def compiled(ruleset: Ruleset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("compiled")
    Matcher(ruleset, made)
    return made


@pytest.fixture
def quick(compiled: Path, bare: Shell) -> None:
    """Compiled patterns lie where a scan of this installation looks for them."""
    shutil.copytree(compiled, bare.data / "cache", dirs_exist_ok=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "code"
    made.mkdir()
    return made
