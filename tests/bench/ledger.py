"""What the blob ledger saves and costs: a fork's pack of large files, with and without it."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from secrets import token_hex

from figures import Figure, milliseconds

sys.path.insert(0, str(Path(__file__).parents[2]))

from scanner.cache.redis_ledger import RedisLedger
from scanner.db.engine import create_database_engine
from scanner.db.ledger import DatabaseLedger
from scanner.db.upgrade import upgrade_database
from scanner.embedded.git_server import git
from scanner.git.sandbox import SandboxInspector
from scanner.keyring import Key
from scanner.matcher.engine import Matcher
from scanner.patterns.loader import load
from scanner.ports import BlobLedger, KnownBlobs, Pack
from tests.servers.postgres import PostgresServer
from tests.servers.present import place_of
from tests.servers.redis import RedisServer, access_to

_FILE = 300_000
_TOTAL = 32 << 20
_LINE = 70
_DAY_MS = 86_400_000
_ASKED = 28  # files of that size in one question


def measure(quick: bool) -> list[Figure]:
    runs = 3 if quick else 25
    rows = []
    with ExitStack() as running:
        ledgers = running.enter_context(_ledgers())[-1 if quick else 0 :]
        for kind, files in (("source text", _source()), ("DNA, lower case", _dense(quick))):
            rows += _reading(
                kind, files, ledgers, runs if kind == "source text" else 1 + (not quick)
            )
        for name, ledger in ledgers:
            rows += _steps(name, ledger, runs)
    return rows


def _reading(
    kind: str, files: list[bytes], ledgers: list[tuple[str, BlobLedger]], runs: int
) -> list[Figure]:
    ruleset = load()
    digest = f"{Matcher(ruleset).digest[:32]}{token_hex(16)}"
    data = _pack(files)
    inspector = SandboxInspector(ruleset, timeout=600)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        pack = Pack(file, len(data))
        bare = inspector.inspect(pack, 20, lambda _: ()).bare
        assert len(bare) > 0.8 * len(files)  # a few hold what looks like a token
        for _, ledger in ledgers:
            _remember(ledger, digest, bare)
        ways: list[tuple[str, KnownBlobs | None]] = [("", None)]
        for name, ledger in ledgers:
            ways.append((f"… nothing known, {name}", partial(ledger.known, token_hex(32))))
            ways.append((f"… all known, {name}", partial(ledger.known, digest)))
        taken: list[list[float]] = [[] for _ in ways]
        for _ in range(runs):  # in turns, so that a busy moment hits all of them
            for times, (_, known) in zip(taken, ways, strict=True):
                began = time.perf_counter()
                inspector.inspect(pack, 20, known)
                times.append(time.perf_counter() - began)
    inspector.close()
    medians = [statistics.median(times) for times in taken]
    first = f"{len(files)} files of {_FILE // 1000} KB, {kind}: without a ledger"
    names = [first, *(name for name, _ in ways[1:])]
    return [
        Figure(name, milliseconds(median), "1" if name == first else f"{median / medians[0]:.2f}")
        for name, median in zip(names, medians, strict=True)
    ]


def _steps(name: str, ledger: BlobLedger, runs: int) -> list[Figure]:
    ids = [token_hex(20) for _ in range(_ASKED)]
    digest = token_hex(32)

    def median(call: Callable[[], object]) -> str:
        taken = []
        for _ in range(runs * 10):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
        return milliseconds(statistics.median(taken))

    miss = median(lambda: ledger.known(digest, ids))
    remember = median(lambda: _remember(ledger, digest, [token_hex(20) for _ in range(_ASKED)]))
    _remember(ledger, digest, ids)
    return [
        Figure(f"one question, {_ASKED} files, none known: {name}", miss),
        Figure("… all known", median(lambda: ledger.known(digest, ids))),
        Figure("… remember as many, commit included", remember),
    ]


def _remember(ledger: BlobLedger, digest: str, ids: list[str] | tuple[str, ...]) -> None:
    behind = ledger._behind if isinstance(ledger, RedisLedger) else ledger
    assert isinstance(behind, DatabaseLedger)
    with behind._engine.begin() as connection:
        ledger.remember(connection, digest, ids)
    ledger.publish(digest, ids)


@contextmanager
def _ledgers() -> Iterator[list[tuple[str, BlobLedger]]]:
    """SQLite, and what else this machine has."""
    with ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory())
        urls = {"SQLite": f"sqlite:///{folder}/patrol.db"}
        if place := place_of("postgresql"):
            postgres = running.enter_context(PostgresServer(place))
            urls["PostgreSQL"] = postgres.url(postgres.create_database())
        found: list[tuple[str, BlobLedger]] = []
        for name, url in urls.items():
            engine = create_database_engine(url)
            running.callback(engine.dispose)
            upgrade_database(engine)
            found.append((name, DatabaseLedger(engine, keep_ms=_DAY_MS, most_rows=1_000_000)))
        if place := place_of("redis-server"):
            redis = running.enter_context(RedisServer(place))
            name, behind = found[-1]
            keys = [Key("k1", b"k" * 32)]
            found.append(
                (f"Redis before {name}", RedisLedger(behind, access_to(redis.url()), keys))
            )
        yield found


def _source() -> list[bytes]:
    sources = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    text = b"".join(source.read_bytes() for source in sources)[: _TOTAL * 2]
    starts = random.Random(5).sample(range(len(text) - _FILE), _TOTAL // _FILE)
    return [text[start : start + _FILE] for start in starts]


def _dense(quick: bool) -> list[bytes]:
    """Data that has a pattern's alphabet and no token: the matcher looks at every byte of it."""
    rng = random.Random(6)
    lines = _FILE // (_LINE + 1)
    return [
        b"\n".join(bytes(rng.choices(b"acgt", k=_LINE)) for _ in range(lines))
        for _ in range(15 if quick else 30)
    ]


def _pack(files: list[bytes]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        git("init", "--quiet", folder)
        for number, content in enumerate(files):
            Path(folder, f"f{number}").write_bytes(content)
        git("add", "--all", cwd=Path(folder))
        git("commit", "--quiet", "-m", "Files", cwd=Path(folder))
        return subprocess.run(
            ["git", "pack-objects", "--stdout", "--revs", "-q", "--delta-base-offset"],
            cwd=folder, input=b"HEAD\n", capture_output=True, check=True,
        ).stdout  # fmt: skip
