"""The database of a ruleset: its probes, and their expressions compiled for Hyperscan.

Both are kept in a file between processes: writing the expressions takes longer than loading them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import hyperscan

from scanner.errors import ConfigurationError
from scanner.matcher import cache
from scanner.matcher.pattern import Ruleset
from scanner.matcher.probes import EDITION, Form, Probe, probes
from scanner.matcher.shape import ShapeError, read_shape


@dataclass(frozen=True, slots=True)
class Database:
    """`scanner` is Hyperscan's, with scratch; a match's id is the index of its probe."""

    probes: tuple[Probe, ...]
    scanner: Any


def open_database(ruleset: Ruleset, cache_dir: Path | None) -> Database:
    """Return the database of a ruleset with patterns, from the cache if it is there.

    A cache that cannot be used only costs time. Errors: `ConfigurationError`.
    """
    if cache_dir is None:
        return _build(tuple(pattern.regex for pattern in ruleset.patterns))
    path = cache_dir / _name(ruleset)
    content = cache.read(path, os.geteuid())
    if content is not None:
        loaded = _load(content)
        if loaded is not None:
            return loaded
        cache.log.warning("%s does not load; compiling again", path.name)
    built = _build(tuple(pattern.regex for pattern in ruleset.patterns))
    cache.write(path, _dump(built))
    return built


def compile_expressions(expressions: Sequence[str]) -> Any:
    """Compile expressions into one block-mode database.

    Without start-of-match tracking: that costs memory and rules patterns out. Bounds are left to
    the confirmation: they would turn Hyperscan's fast bounded repeat into an automaton (a bare
    `[a-z2-7]{52}` scans at 3.6 GB/s, with a boundary on either side at 0.6 GB/s).
    Errors: `ConfigurationError`.
    """
    database = hyperscan.Database()
    count = len(expressions)
    encoded = [expression.encode() for expression in expressions]
    try:
        database.compile(expressions=encoded, ids=list(range(count)), elements=count, flags=0)
    except hyperscan.error as error:
        raise ConfigurationError(f"Hyperscan cannot compile the patterns: {error}") from None
    return database


@lru_cache(maxsize=8)
def _build(regexes: tuple[str, ...]) -> Database:
    """Compile; once in a process for the same patterns, as a database is never changed."""
    found: list[Probe] = []
    expressions: list[str] = []
    for rule, regex in enumerate(regexes):
        try:
            shape = read_shape(regex)
        except ShapeError as error:
            raise ConfigurationError(f"A pattern's regex cannot be used: {error}.") from None
        for probe, expression in probes(rule, shape):
            found.append(probe)
            expressions.append(expression)
    return Database(tuple(found), compile_expressions(expressions))


def _name(ruleset: Ruleset) -> str:
    regexes = [pattern.regex for pattern in ruleset.patterns]
    digest = hashlib.sha256(json.dumps([EDITION, regexes]).encode()).hexdigest()
    version = importlib.metadata.version("hyperscan")
    return f"patterns-{version}-{os.uname().machine}-{digest[:48]}.hs"


def _dump(database: Database) -> bytes:
    head = json.dumps([astuple(probe) for probe in database.probes]).encode()
    dump: bytes = hyperscan.dumpb(database.scanner)
    return len(head).to_bytes(8, "big") + head + dump


def _load(content: bytes) -> Database | None:
    split = 8 + int.from_bytes(content[:8], "big")
    try:
        rows = json.loads(content[8:split])
        found = tuple(Probe(rule, Form(form), *rest) for rule, form, *rest in rows)
        scanner = hyperscan.loadb(content[split:], hyperscan.HS_MODE_BLOCK)
        scanner.scratch = hyperscan.Scratch(scanner)
    except (ValueError, TypeError, hyperscan.error):
        return None
    return Database(found, scanner)
