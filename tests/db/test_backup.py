"""The commands of docs/postgresql.md: a dump that is restored is the same installation."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from scanner.db import audit
from scanner.db.engine import create_database_engine, reader
from scanner.db.schema import audit_events
from scanner.db.upgrade import is_current, upgrade_database
from scanner.model import AuditAction
from tests.servers.postgres import PostgresServer
from tests.servers.present import needs

ROOT = Path(__file__).parents[2]
ADDRESS = "postgresql://patrol@host/patrol"


def documented(program: str) -> list[str]:
    page = (ROOT / "docs" / "postgresql.md").read_text("utf-8").replace("\\\n", "")
    (line,) = re.findall(rf"^ {{4}}({program} .+)$", page, re.MULTILINE)
    return shlex.split(line)


def test_a_dump_is_taken_while_patrol_runs_and_restored(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    urls = [postgres_server.url(postgres_server.create_database()) for _ in range(2)]
    first, second = map(create_database_engine, urls)
    upgrade_database(first)
    with first.begin() as connection:
        for number in range(20):
            audit.record(connection, AuditAction.LEAK_FOUND, number=number)
    with first.begin() as connection:
        audit.seal(connection)
        audit.record(connection, AuditAction.LEAK_FOUND, number=20)

    with first.begin() as working:  # a transaction that is not in the dump
        audit.record(working, AuditAction.LEAK_FOUND, number=21)
        for program, url in zip(("pg_dump", "pg_restore"), urls, strict=True):
            _, *options = documented(program)
            address = url.replace("+psycopg", "")
            done = subprocess.run(
                [needs("postgresql") / program, *(o.replace(ADDRESS, address) for o in options)],
                cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, "")

    assert is_current(second)
    with reader(second).connect() as connection:
        found = audit.verify(connection)
        assert (found.sealed, found.unsealed, found.problems) == (20, 1, ())
    with second.begin() as connection:
        audit.record(connection, AuditAction.LEAK_FOUND, number=22)
        assert audit.seal(connection) == 2
        told = connection.execute(select(audit_events.c.data)).scalars()
        assert sorted(data["number"] for data in told) == [*range(21), 22]
    with pytest.raises(DBAPIError, match="immutable"), second.begin() as connection:
        connection.execute(audit_events.delete())
    for engine, url in ((first, urls[0]), (second, urls[1])):
        engine.dispose()
        postgres_server.drop_database(url.rpartition("/")[2])
