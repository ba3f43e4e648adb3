"""Making new tokens: only of the patterns that the store answers for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scanner.errors import RequestInvalidError
from scanner.matcher.mask import mask
from scanner.matcher.pattern import Ruleset
from scanner.model import Secret
from scanner.patterns.generate import generate, issuable
from scanner.stores import rules


@dataclass(frozen=True, slots=True)
class Minted:
    """A token that nobody has yet."""

    secret: Secret
    pattern: str
    mask: str


class Mint:
    """Makes tokens of the patterns `bound`."""

    def __init__(self, ruleset: Ruleset, bound: Iterable[str]) -> None:
        self._patterns = {p.id: p for p in ruleset.patterns if p.id in frozenset(bound)}

    @property
    def patterns(self) -> list[str]:
        """The ids of all patterns that tokens can be made of, sorted."""
        return sorted(self._patterns)

    def make(self, pattern_id: str) -> Minted:
        """Return a new token. Errors: `RequestInvalidError`."""
        pattern = self._patterns.get(pattern_id)
        if pattern is None:
            raise RequestInvalidError(
                f"The store does not issue {rules.quoted(pattern_id)}; it issues: "
                f"{', '.join(self.patterns)}."
            )
        if not issuable(pattern):
            raise RequestInvalidError(f"Tokens of {pattern_id} can be found, but not issued.")
        secret = generate(pattern)
        return Minted(secret, pattern.id, mask(pattern, secret.reveal()))
