"""The keyed name of a secret: what is kept, shown and compared instead of it (law 1)."""

from __future__ import annotations

import hashlib
import hmac

from scanner.keyring import Key
from scanner.model import Secret


def fingerprint(key: Key, pattern: str, secret: Secret) -> str:
    """Return 64 hex digits: the same secret and pattern give the same value under one key."""
    return keyed(key.value, pattern, secret)


def keyed(key: bytes, pattern: str, secret: Secret) -> str:
    """Return the same under a key that is in no ring, such as a baseline's own salt."""
    message = pattern.encode() + b"\0" + secret.reveal()
    return hmac.new(key, message, hashlib.sha256).hexdigest()
