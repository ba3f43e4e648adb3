"""New tokens from a pattern's template, e.g. "ghp_{base62:30}{check:6}"."""

from __future__ import annotations

import random
import re
import secrets

from scanner.errors import ConfigurationError
from scanner.matcher.checksums import CHECKSUMS
from scanner.matcher.pattern import Pattern
from scanner.model import Secret

ALPHABETS = {
    "base62": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "base32": "abcdefghijklmnopqrstuvwxyz234567",
    "hex": "0123456789abcdef",
    "check": "0",  # replaced when the checksum is computed
}
_FIELD = re.compile(r"\{(\w+):(\d+)\}")
_DRAWS = 1_000


def generate(pattern: Pattern, rng: random.Random | None = None) -> Secret:
    """Return a fresh token of the pattern, with a right checksum. Random source: the system's."""
    source = rng or secrets.SystemRandom()
    if not pattern.generate:
        raise ConfigurationError(f"The pattern {pattern.id} has no template to generate from.")

    def draw(field: re.Match[str]) -> str:
        alphabet = ALPHABETS.get(field[1])
        if alphabet is None:
            raise ConfigurationError(f"{pattern.id}: unknown alphabet {field[1]!r} in generate.")
        return "".join(source.choice(alphabet) for _ in range(int(field[2])))

    for _ in range(_DRAWS):
        token: bytes | None = _FIELD.sub(draw, pattern.generate).encode()
        if pattern.checksum is not None and token is not None:
            token = CHECKSUMS[pattern.checksum].complete(token)
        if token is not None:
            return Secret(token)
    raise ConfigurationError(f"{pattern.id}: its template never yields a right checksum.")
