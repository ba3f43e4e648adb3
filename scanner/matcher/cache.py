"""The compiled Hyperscan database, kept between processes.

A serialised database is native input: it is used only when it is ours (owner, mode) and its SHA-256
is the one that was written with it. Everything else means compiling again.
"""

from __future__ import annotations

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

log = logging.getLogger(__name__)

_HASH = 32  # bytes of SHA-256 before the dump


def compile_database(ruleset: Ruleset) -> Any:
    """Compile all patterns into one block-mode database, without start-of-match tracking."""
    database = hyperscan.Database()
    patterns = ruleset.patterns
    try:
        database.compile(
            expressions=[(pattern.anchor or pattern.regex).encode() for pattern in patterns],
            ids=list(range(len(patterns))),
            elements=len(patterns),
            flags=0,
        )
    except hyperscan.error as error:
        raise ConfigurationError(f"Hyperscan cannot compile the patterns: {error}") from None
    return database


def load_or_compile(ruleset: Ruleset, cache_dir: Path | None) -> Any:
    """Return a database with scratch; a cache that cannot be used only costs time."""
    if cache_dir is None:
        return compile_database(ruleset)
    version = importlib.metadata.version("hyperscan")
    path = cache_dir / f"patterns-{version}-{os.uname().machine}-{ruleset.digest[:32]}.hs"
    dump = _read(path)
    if dump is not None:
        try:
            database = hyperscan.loadb(dump, hyperscan.HS_MODE_BLOCK)
            database.scratch = hyperscan.Scratch(database)
        except hyperscan.error:
            log.warning("%s does not load; compiling again", path.name)
        else:
            return database
    database = compile_database(ruleset)
    _write(path, hyperscan.dumpb(database))
    return database


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            log.warning("%s is not ours alone; compiling again", path.name)
            return None
        content = file.read()
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
