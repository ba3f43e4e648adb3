"""The compiled Hyperscan database, kept between processes.

A serialised database is native input: it is used only when it is ours (owner, mode) and its SHA-256
is the one that was written with it. Everything else means compiling again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import stat
from pathlib import Path

log = logging.getLogger(__name__)

_HASH = 32  # bytes of SHA-256 before the dump


def read(path: Path, owner: int) -> bytes | None:
    """Return what was written; None unless it is whole and `owner` alone can have done it.

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


def write(path: Path, dump: bytes) -> None:
    """Write the file for us alone, whole or not at all; that it cannot be is only logged."""
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
