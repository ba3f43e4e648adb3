"""What may be shown of a token: its constant prefix and its last characters (law 1)."""

from __future__ import annotations

from scanner.matcher.pattern import Pattern

_SHOWN = 4
_SHARE = 8  # at most an eighth of the random part is shown


def mask(pattern: Pattern, secret: bytes) -> str:
    """Return e.g. "ghp_…a1B2"; fewer tail characters for a short token."""
    prefix = secret[: pattern.mask_prefix].decode("ascii", "replace")
    shown = min(_SHOWN, (len(secret) - pattern.mask_prefix) // _SHARE)
    tail = secret[len(secret) - shown :].decode("ascii", "replace")
    return "".join(c if c.isprintable() else "\ufffd" for c in f"{prefix}…{tail}")
