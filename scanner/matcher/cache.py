"""The compiled Hyperscan database, kept between processes.

A serialised database is native input: it is used only when it is ours (owner, mode) and its SHA-256
is the one that was written with it. Everything else means compiling again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import secrets
import stat
from pathlib import Path
from typing import Any

import hyperscan

from scanner.errors import ConfigurationError
from scanner.matcher.pattern import Ruleset
from scanner.matcher.shape import ShapeError, read_shape

log = logging.getLogger(__name__)

_HASH = 32  # bytes of SHA-256 before the dump


def compile_database(ruleset: Ruleset) -> Any:
    """Compile all patterns into one block-mode database; a match's id is its pattern's index.

    Without start-of-match tracking: that costs memory and rules patterns out. Bounds are left to
    the confirmation: they would turn Hyperscan's fast bounded repeat into an automaton (a bare
    `[a-z2-7]{52}` scans at 3.6 GB/s, with a boundary on either side at 0.6 GB/s).
    """
    return _compile(_expressions(ruleset))


def _expressions(ruleset: Ruleset) -> list[bytes]:
    try:
        return [read_shape(pattern.regex).hyperscan.encode() for pattern in ruleset.patterns]
    except ShapeError as error:
        raise ConfigurationError(f"A pattern's regex cannot be used: {error}.") from None


def _compile(expressions: list[bytes]) -> Any:
    database = hyperscan.Database()
    count = len(expressions)
    try:
        database.compile(expressions=expressions, ids=list(range(count)), elements=count, flags=0)
    except hyperscan.error as error:
        raise ConfigurationError(f"Hyperscan cannot compile the patterns: {error}") from None
    return database


def load_or_compile(ruleset: Ruleset, cache_dir: Path | None) -> Any:
    """Return a database with scratch; a cache that cannot be used only costs time."""
    expressions = _expressions(ruleset)
    if cache_dir is None:
        return _compile(expressions)
    path = cache_dir / _name(ruleset, expressions)
    dump = read_dump(path, os.geteuid())
    if dump is not None:
        try:
            database = hyperscan.loadb(dump, hyperscan.HS_MODE_BLOCK)
            database.scratch = hyperscan.Scratch(database)
        except hyperscan.error:
            log.warning("%s does not load; compiling again", path.name)
        else:
            return database
    database = _compile(expressions)
    _write(path, hyperscan.dumpb(database))
    return database


def _name(ruleset: Ruleset, expressions: list[bytes]) -> str:
    """The ruleset alone does not name the database: a release may write its expressions anew."""
    form = hashlib.sha256(b"\0".join(expressions)).hexdigest()
    version = importlib.metadata.version("hyperscan")
    return f"patterns-{version}-{os.uname().machine}-{ruleset.digest[:32]}-{form[:16]}.hs"


def read_dump(path: Path, owner: int) -> bytes | None:
    """Return the dump, or None unless it is whole and only the user id `owner` can have written it.

    Anything else in its place (a link, a folder, a pipe) is no dump either.
    """
    try:
        # Not blocking: a pipe that somebody put there must not hold the start-up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        ours = stat.S_ISREG(status.st_mode) and status.st_uid == owner
        if not ours or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            log.warning("%s is not ours alone; compiling again", path.name)
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read()
    except OSError as error:
        log.warning("%s cannot be read (%s); compiling again", path.name, error.strerror)
        return None
    finally:
        os.close(descriptor)
    digest, dump = content[:_HASH], content[_HASH:]
    if hashlib.sha256(dump).digest() != digest:
        log.warning("%s is damaged; compiling again", path.name)
        return None
    return dump


def _write(path: Path, dump: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(dump).digest() + dump)
        temporary.replace(path)
    except OSError as error:
        log.info("the compiled patterns are not cached: %s", error.strerror)
        with contextlib.suppress(OSError):  # the same disk or folder may refuse this as well
            temporary.unlink(missing_ok=True)
