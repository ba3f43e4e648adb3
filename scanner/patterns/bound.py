"""Which patterns a token store answers for."""

from __future__ import annotations

from collections.abc import Iterable

from scanner.errors import ConfigurationError
from scanner.matcher.pattern import Ruleset


def bound_patterns(ruleset: Ruleset, named: Iterable[str]) -> frozenset[str]:
    """Return the ids of the `named` patterns, and of all of the issuer's own.

    Errors: `ConfigurationError` when one is named that does not exist.
    """
    named = frozenset(named)
    if unknown := named - {pattern.id for pattern in ruleset.patterns}:
        raise ConfigurationError(
            f"PATROL_STORE_PATTERNS names unknown patterns: {', '.join(sorted(unknown))}."
        )
    return named | {pattern.id for pattern in ruleset.patterns if pattern.own}
