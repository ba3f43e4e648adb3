"""Sealed values: raw text that must wait, encrypted, bound to its row, with an expiry (law 1).

A sealed value begins with the id of its key. Keys are by day where they are made here: when the
time that anything may wait is over, the day's key is destroyed, and with it every copy of the
value, in back-ups too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from scanner.errors import ConfigurationError, FinalError
from scanner.keyring import Key

_COLON = b":"  # never part of a key's id, nor of what Fernet writes


class Sealer:
    """Seals small JSON values under the newest key; opens them under the one that sealed them.

    The ring may change while it is used. Errors: `ConfigurationError` for a key that is none.
    """

    def __init__(self, ring: Sequence[Key]) -> None:
        self._ring = ring
        if not [_fernet(key) for key in ring]:
            raise ConfigurationError("PATROL_SEAL_KEYS: it holds no key.")

    @property
    def key_ids(self) -> frozenset[str]:
        """What is sealed under these can be opened."""
        return frozenset(key.id for key in self._ring)

    def seal(self, bound_to: str, value: Mapping[str, str]) -> bytes:
        """Encrypt `value` so that it opens only for the same `bound_to`."""
        key = self._ring[0]
        text = json.dumps([bound_to, dict(value)]).encode()
        return key.id.encode() + _COLON + _fernet(key).encrypt(text)

    def open(self, bound_to: str, sealed: bytes) -> dict[str, str]:
        """Decrypt; raises `FinalError` if it was tampered with, moved, or its key is gone."""
        key_id = key_of(sealed)
        # Without an id it was sealed by an earlier version.
        keys = [_fernet(key) for key in self._ring if key_id in (key.id, None)]
        gone = FinalError("A sealed value cannot be opened: its key is gone.")
        if not keys:
            raise gone
        try:
            text = MultiFernet(keys).decrypt(sealed.rpartition(_COLON)[2])
        except InvalidToken:
            raise gone from None
        owner, value = json.loads(text)
        if owner != bound_to:
            raise FinalError("A sealed value was moved to another row.")
        return dict(value)


def key_of(sealed: bytes) -> str | None:
    """Return the id of the key that sealed a value; None: an earlier version did not tell."""
    key_id, colon, _ = sealed.rpartition(_COLON)
    return key_id.decode() if colon else None


def _fernet(key: Key) -> Fernet:
    try:
        return Fernet(key.value)
    except ValueError:
        raise ConfigurationError(
            "PATROL_SEAL_KEYS: each key must be 32 bytes in URL-safe base64."
        ) from None
