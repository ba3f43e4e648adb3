"""Keys, their rings, and the files that hold them: made once, strong, readable by their owner only.

A ring that a setting gives is fixed while the process lives. One in a file that was made here may
be turned at any time, by any process: whoever uses it sees the new key at once.
"""

from __future__ import annotations

import base64
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from scanner.errors import ConfigurationError

# What people copy from examples, whatever they put between and behind the words.
_EXAMPLE = re.compile(r"(?:changeme|secret|password|test|example)+")
_SHORTEST_SECRET = 16  # characters; a webhook secret below that can be guessed offline
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")
_TEMPORARY = r"\.[0-9a-f]{8}"  # the end of the name of a file that is being written
_FEWEST_CHARACTERS = 5  # different ones; "aaaa…" is long, too


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a key ring: `id` is stored beside whatever the key made."""

    id: str
    value: bytes

    def __repr__(self) -> str:
        return f"Key({self.id!r}, hidden)"


class Ring(Sequence[Key]):
    """Keys, newest first: the first makes what is new, the others still know what they made.

    `setting` names it in errors. `given` is its text (`id:key,id:key`); without one, `path` is the
    file that holds it, made with `make` when it is missing at the first use. From then on a file
    that is gone, or holds another key under an id, is an error and not a new beginning: with other
    keys everything that is known would read "unknown".
    """

    def __init__(
        self, setting: str, given: str | None, path: Path, make: Callable[[], str]
    ) -> None:
        self._setting, self.path, self._make = setting, path, make
        self.is_file = given is None
        self._version: tuple[int, ...] = ()
        self._keys: tuple[Key, ...] = ()
        if given is not None:
            self._keys = _parse(given.strip(), setting)

    @overload
    def __getitem__(self, index: int) -> Key: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Key, ...]: ...
    def __getitem__(self, index: int | slice) -> Key | tuple[Key, ...]:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._now())

    def __iter__(self) -> Iterator[Key]:
        return iter(self._now())

    def find(self, key_id: str) -> Key | None:
        """Return the key of that id."""
        return next((key for key in self._now() if key.id == key_id), None)

    def add(self, key_id: str) -> bool:
        """Put a new key first; False: there is one of that id. Errors: `ConfigurationError`."""
        with self._changing() as keys:
            if any(key.id == key_id for key in keys):
                return False
            self._write([Key(key_id, self._make().encode()), *keys])
        return True

    def remove(self, key_ids: Iterable[str]) -> None:
        """Destroy keys: what they made is lost. The newest stays. Errors: `ConfigurationError`."""
        gone = set(key_ids)
        with self._changing() as keys:
            self._write([keys[0], *(key for key in keys[1:] if key.id not in gone)])

    def _now(self) -> tuple[Key, ...]:
        if not self.is_file:
            return self._keys
        if not self._version:
            create_once(self.path, lambda: f"k1:{self._make()}")
        what = f"{self._setting} is not set, and {self.path}"
        try:
            status = self.path.stat()
        except OSError as error:
            raise ConfigurationError(f"{what} cannot be read ({error.strerror}).") from None
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if version != self._version:
            text = read_secret(self.path, what).strip()
            if not text:
                raise ConfigurationError(
                    f"{self.path} is empty; restore it from a back-up or set {self._setting}."
                )
            keys = _parse(text, self._setting)
            known = {key.id: key.value for key in self._keys}
            if any(known.get(key.id, key.value) != key.value for key in keys):
                raise ConfigurationError(
                    f"{self.path} holds another key under a known id; restore it from a back-up."
                )
            self._keys, self._version = keys, version
        return self._keys

    @contextmanager
    def _changing(self) -> Iterator[tuple[Key, ...]]:
        if not self.is_file:
            raise ConfigurationError(
                f"{self._setting} is set from outside; change it there: a new key before the old "
                "ones, made with: openssl rand -hex 32"
            )
        self._now()  # it is there
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._sweep()
            yield self._now()

    def _sweep(self) -> None:
        """Remove what a killed change left behind: it holds keys that may have to be destroyed."""
        for left in self.path.parent.glob(f".{self.path.name}.*"):
            if re.fullmatch(_TEMPORARY, left.suffix):
                left.unlink(missing_ok=True)

    def _write(self, keys: Sequence[Key]) -> None:
        text = ",".join(f"{key.id}:{key.value.decode()}" for key in keys)
        _write_private(self.path, text).replace(self.path)
        _sync_folder(self.path.parent)


def _parse(text: str, setting: str) -> tuple[Key, ...]:
    keys = []
    for part in text.split(","):
        key_id, colon, material = part.strip().partition(":")
        if not colon or not key_id or not material:
            raise ConfigurationError(f"{setting} must be id:key, newest first, comma between keys.")
        if not _KEY_ID.fullmatch(key_id):
            raise ConfigurationError(
                f"{setting}: a key's id is up to 32 letters, digits, '.', '_' and '-'."
            )
        require_strong(material, setting)
        keys.append(Key(key_id, material.encode()))
    if len({key.id for key in keys}) != len(keys):
        raise ConfigurationError(f"{setting} names one key id twice.")
    return tuple(keys)


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
    temporary = _write_private(path, make())
    try:
        os.link(temporary, path)  # fails if another process was first: then its value counts
        _sync_folder(path.parent)
    except FileExistsError:
        return
    except FileNotFoundError:
        if not path.exists():  # else another process was first, and has tidied up already
            raise
    finally:
        temporary.unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> Path:
    """Write text beside `path`, durably; returns the file, to be moved into its place."""
    prepare_data_dir(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _sync_folder(folder: Path) -> None:
    """Let a name in a folder survive a power cut, as what it names does: rows made with a new key
    may be in a database elsewhere by then."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
