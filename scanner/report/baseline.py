"""What is known and accepted: a file of keyed hashes, so that only what is new is reported.

An entry is the keyed hash of a secret and its pattern, wherever it stands: a new token in a known
line is new, a known one that moved stays known. The salt is the file's own, so the file means the
same on every machine, and no entry can be compared with another file's.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scanner.errors import ConfigurationError
from scanner.fingerprint import keyed
from scanner.model import Candidate

_FORMAT = "patrol-baseline-1"
_MOST_BYTES = 256 << 20
_SALT = re.compile(r"[0-9a-f]{64}")
_ENTRY = re.compile(r"[0-9a-f]{64}")


class Baseline:
    """Known tokens, as hashes under `salt`."""

    def __init__(self, salt: bytes, known: Iterable[str] = ()) -> None:
        self._salt = salt
        self._known = set(known)

    def __contains__(self, candidate: Candidate) -> bool:
        return self._entry(candidate) in self._known

    def __len__(self) -> int:
        return len(self._known)

    def empty(self) -> Baseline:
        """Return a new one with the same salt: what is in both has the same entry."""
        return Baseline(self._salt)

    def add(self, candidate: Candidate) -> None:
        """Know a token from now on."""
        self._known.add(self._entry(candidate))

    def write(self, path: Path) -> None:
        """Write the file whole or not at all, for its owner only.

        Errors: `ConfigurationError` when the place cannot be written.
        """
        content = {"format": _FORMAT, "salt": self._salt.hex(), "known": sorted(self._known)}
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    json.dump(content, file, indent=1)
                    file.write("\n")
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"The baseline {path} cannot be written ({error.strerror})."
            ) from None

    def _entry(self, candidate: Candidate) -> str:
        return keyed(self._salt, candidate.pattern, candidate.secret)


def new_baseline() -> Baseline:
    """Return an empty one with a salt of its own."""
    return Baseline(secrets.token_bytes(32))


def read_baseline(path: Path) -> Baseline:
    """Read a baseline. Errors: `ConfigurationError` when it is none, or cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"The baseline {path} cannot be read ({error.strerror})."
        ) from None
    try:
        return _parse(json.loads(content))
    except (ValueError, RecursionError):  # undecodable text and malformed JSON are ValueErrors
        raise ConfigurationError(
            f"{path} is no baseline of Patrol; write one with: --write-baseline {path}"
        ) from None


def _parse(value: Any) -> Baseline:
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise ValueError("another format")
    salt, known = value.get("salt"), value.get("known")
    if not isinstance(salt, str) or not _SALT.fullmatch(salt) or not isinstance(known, list):
        raise ValueError("a field is missing")
    if not all(isinstance(entry, str) and _ENTRY.fullmatch(entry) for entry in known):
        raise ValueError("not a hash")
    return Baseline(bytes.fromhex(salt), known)
