"""Keys and the files that hold them: made once, strong, readable by their owner only."""

from __future__ import annotations

import base64
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scanner.errors import ConfigurationError

# What people copy from examples, whatever they put between and behind the words.
_EXAMPLE = re.compile(r"(?:changeme|secret|password|test|example)+")
_SHORTEST_SECRET = 16  # characters; a webhook secret below that can be guessed offline
_FEWEST_CHARACTERS = 5  # different ones; "aaaa…" is long, too


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a key ring: `id` is stored beside whatever the key made."""

    id: str
    value: bytes

    def __repr__(self) -> str:
        return f"Key({self.id!r}, hidden)"


def require_strong(secret: str, setting: str) -> None:
    """Refuse, as `ConfigurationError`, what can be guessed; the message names the setting alone."""
    letters = re.sub(r"[^a-z]", "", secret.lower())
    if (
        len(secret) < _SHORTEST_SECRET
        or len(set(secret)) < _FEWEST_CHARACTERS
        or _EXAMPLE.fullmatch(letters)
    ):
        raise ConfigurationError(
            f"{setting} is an example, or shorter than {_SHORTEST_SECRET} characters; make one "
            "with: openssl rand -hex 32"
        )


def read_secret(path: Path, what: str) -> str:
    """Return a file's text; `what` names it in the `ConfigurationError`."""
    try:
        return path.read_text("utf-8")
    except OSError as error:
        reason = error.strerror
    except UnicodeDecodeError:  # its text would show what is in the file
        reason = "it is not text"
    raise ConfigurationError(f"{what} cannot be read ({reason}).")


def fernet_key() -> str:
    """Return a new key for Fernet: 32 random bytes in URL-safe base64."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def create_once(path: Path, make: Callable[[], str]) -> None:
    """Create a secret file with mode 0600; a concurrent start keeps the first one's value."""
    if path.exists():
        return
    prepare_data_dir(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(make() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # fails if another process was first: then its value counts
    except FileExistsError:
        return
    finally:
        temporary.unlink()


def prepare_data_dir(path: Path) -> None:
    """Create a directory, and what is missing above it, for its owner only.

    What exists keeps its mode. Raises `ConfigurationError`.
    """
    try:
        # `parents=True` would leave those above open to everybody.
        for folder in reversed((path, *path.parents)):
            folder.mkdir(exist_ok=True, mode=0o700)
        probe = path / f".write-{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(
            f"The data directory {path} cannot be written ({error.strerror}); "
            "make it writable or set PATROL_DATA_DIR to another place."
        ) from None
