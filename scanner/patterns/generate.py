"""New tokens of a pattern, with a right checksum: for examples, and for `tokens issue`."""

from __future__ import annotations

import random
import secrets

from scanner.errors import ConfigurationError
from scanner.matcher.checksums import CHECKSUMS
from scanner.matcher.pattern import Pattern
from scanner.model import Secret
from scanner.patterns.reader import load
from scanner.patterns.template import LEAST_BITS, parse_template

_DRAWS = 1_000


def generate(pattern: Pattern | str, rng: random.Random | None = None) -> Secret:
    """Return a fresh token of the pattern (or of the built-in pattern with that id).

    Of a foreign format it may be a look-alike, good as an example only: see `issuable`.

    Random source: the system's, unless `rng` is given (for tests: the same seed, the same token).
    Errors: `ConfigurationError`.
    """
    if isinstance(pattern, str):
        (pattern,) = load(only=[pattern]).patterns
    if not pattern.generate:
        raise ConfigurationError(f"The pattern {pattern.id} has no template to generate from.")
    template = parse_template(pattern.generate)
    source = rng or secrets.SystemRandom()
    for _ in range(_DRAWS):
        token: bytes | None = template.draw(source)
        if pattern.checksum is not None and token is not None:
            token = CHECKSUMS[pattern.checksum].complete(token)
        if token is not None:
            return Secret(token)
    raise ConfigurationError(f"{pattern.id}: its template never yields a right checksum.")


def issuable(pattern: Pattern) -> bool:
    """Tell whether its tokens can be issued: of 128 random bits and no look-alikes."""
    if not pattern.generate:
        return False
    made_up = pattern.checksum is not None and CHECKSUMS[pattern.checksum].look_alike
    return parse_template(pattern.generate).bits >= LEAST_BITS and not made_up
