"""Sealed values: raw text that must wait, encrypted, bound to its row, with an expiry (law 1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from scanner.errors import ConfigurationError, FinalError
from scanner.keyring import Key


class Sealer:
    """Seals small JSON values under the newest key; opens them under any key of the ring."""

    def __init__(self, ring: Sequence[Key]) -> None:
        try:
            self._fernet = MultiFernet([Fernet(key.value) for key in ring])
        except ValueError:
            raise ConfigurationError(
                "PATROL_SEAL_KEYS: each key must be 32 bytes in URL-safe base64."
            ) from None
        self.key_id = ring[0].id

    def seal(self, bound_to: str, value: Mapping[str, str]) -> bytes:
        """Encrypt `value` so that it opens only for the same `bound_to`."""
        return self._fernet.encrypt(json.dumps([bound_to, dict(value)]).encode())

    def open(self, bound_to: str, sealed: bytes) -> dict[str, str]:
        """Decrypt; raises `FinalError` if it was tampered with, moved, or its key is gone."""
        try:
            owner, value = json.loads(self._fernet.decrypt(sealed))
        except InvalidToken:
            raise FinalError("A sealed value cannot be opened: its key is gone.") from None
        if owner != bound_to:
            raise FinalError("A sealed value was moved to another row.")
        return dict(value)
