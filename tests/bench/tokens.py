"""The built-in token store with a million tokens: their import, and look-ups among them.

A million only with `--long`: it takes minutes. The file is written beforehand; importing reads,
checks, wraps each digest under the pepper, looks for what is there already and for leaks that were
seen before, and commits ten thousand rows at a time.
"""

from __future__ import annotations

import hashlib
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engines import on_each_database
from figures import Figure
from sqlalchemy import Engine

from scanner.keyring import Key
from scanner.matcher.engine import Matcher
from scanner.model import Secret, Validity
from scanner.patterns.loader import load
from scanner.stores.digests import Peppers
from scanner.stores.importer import Importer, Outcome
from scanner.stores.sql import SqlTokenStore

_PATTERN = "azure-devops-pat"
_MOST, _MANY, _FEW = 1_000_000, 100_000, 20_000
_ORGANISATIONS, _OWNERS = 50, 2_000
_LOT = 1_000  # tokens of a batched look-up


def measure(quick: bool, *, is_long: bool = False) -> list[Figure]:
    """Import on each database, then look up what was imported and what was not."""
    count = _FEW if quick else _MOST if is_long else _MANY
    rows = []
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "tokens.csv"
        _write(file, count)
        for name, engine in on_each_database(running):
            peppers = Peppers([Key("p1", b"p" * 32)])
            rows += _import(name, engine, peppers, file, count)
            rows += _look_up(name, SqlTokenStore(engine, peppers), count, 5 if quick else 100)
    return rows


@dataclass
class _Progress:
    """When how many rows were in; rates of parts show what a busy moment cost."""

    moments: list[tuple[float, int]]

    def __call__(self, outcome: Outcome) -> None:
        self.moments.append((time.perf_counter(), outcome.imported))

    def median_rate(self) -> float:
        return statistics.median(
            (after - before) / (end - begin)
            for (begin, before), (end, after) in zip(self.moments, self.moments[1:], strict=False)
        )


def _import(name: str, engine: Engine, peppers: Peppers, file: Path, count: int) -> list[Figure]:
    matcher = Matcher(load())
    importer = Importer(
        engine, peppers, frozenset({_PATTERN}), lambda text: bool(matcher.scan(text)),
        matcher.redact,
    )  # fmt: skip
    began, processor = time.perf_counter(), _processor()
    progress = _Progress([(began, 0)])
    outcome = importer.run(file, default_pattern=_PATTERN, actor="bench", report=progress)
    wall, processor = time.perf_counter() - began, _processor() - processor
    assert (outcome.imported, outcome.rejected) == (count, 0)
    return [
        Figure(
            f"import of {count:,} digests, {name}: the median batch",
            f"{progress.median_rate():,.0f}/s", "1", "≥ 50,000/s",
        ),
        Figure("… all of it", f"{count / wall:,.0f}/s"),
        Figure("… a second of our own processor time", f"{count / processor:,.0f}"),
    ]  # fmt: skip


def _look_up(name: str, store: SqlTokenStore, count: int, runs: int) -> list[Figure]:
    numbers = random.Random(3)
    single, batched = [], []
    store.find([_secret(count)])
    for _ in range(runs * 20):
        secret = _secret(numbers.randrange(count))
        began = time.perf_counter()
        (found,) = store.find([secret])
        single.append(time.perf_counter() - began)
        assert found.validity is Validity.ACTIVE
    for _ in range(runs):
        lot = [_secret(numbers.randrange(2 * count)) for _ in range(_LOT)]  # half are unknown
        began = time.perf_counter()
        answers = store.find(lot)
        batched.append(time.perf_counter() - began)
        assert len({one.validity for one in answers}) == 2
    return [
        Figure(
            f"look-up of one among {count:,}, {name}: median, 99 of 100",
            f"{_microseconds(statistics.median(single))}, {_microseconds(_most(single))}",
            "1", "≤ 200 µs",
        ),
        Figure(
            f"look-ups of {_LOT:,} at a time, {name}",
            f"{_LOT / statistics.median(batched):,.0f}/s", "", "≥ 5,000/s",
        ),
    ]  # fmt: skip


def _most(taken: Sequence[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]


def _microseconds(value: float) -> str:
    return f"{value * 1e6:,.0f} µs"


def _processor() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _secret(number: int) -> Secret:
    return Secret(f"bench-{number:078}".encode())


def _write(file: Path, count: int) -> None:
    with file.open("w", encoding="utf-8") as out:
        out.write("digest,name,organisation,owner,email,external_id\n")
        for number in range(count):
            digest = hashlib.sha256(_secret(number).reveal()).hexdigest()
            owner = number % _OWNERS
            organisation = owner % _ORGANISATIONS
            out.write(
                f"{digest},deploy {number},Organisation {organisation},Owner {owner},"
                f"owner{owner}@example.com,{number}\n"
            )
