"""One token pattern and a set of them: plain data, no I/O."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum


class ChecksumMode(StrEnum):
    """What a checksum's verdict does: gate (drop the candidate) or only score it."""

    REQUIRED = "required"
    SCORE = "score"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A recognisable token format. Source: a TOML file in scanner/patterns/ or the issuer's own."""

    id: str
    issuer: str
    name: str  # for people, e.g. "Azure DevOps personal access token"
    regex: str  # over bytes, without bounds; the matcher groups it
    bounds: str  # regex character class body: bytes that may not touch the token; "" for any
    min_width: int  # bytes, derived from regex
    max_width: int  # bytes, derived from regex; finite
    checksum: str | None = None  # name in matcher.checksums
    checksum_mode: ChecksumMode = ChecksumMode.SCORE
    mask_prefix: int = 0  # leading bytes that are the same in every token and may be shown
    placeholders: tuple[str, ...] = ()
    random_end: int = 0  # where its random part ends, from mask_prefix on; 0 is the token's end
    generate: str = ""  # template examples and new tokens are made from
    reference: str = ""
    own: bool = False  # the issuer's own, from its configuration
    bounds_after: str | None = None  # the same behind the token; None: as `bounds`
    entropy: float = 0.0  # bits a byte (Shannon) that a token must exceed; 0: any


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The patterns of one matcher; `digest` names exactly what a scan looked for."""

    patterns: tuple[Pattern, ...]

    @property
    def digest(self) -> str:
        """Hex SHA-256 over everything that can change what is found."""
        canonical = json.dumps([asdict(p) for p in self.patterns], sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()
