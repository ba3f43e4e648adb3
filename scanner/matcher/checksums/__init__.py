"""Checksums and structures of token formats, by the names that patterns use.

One file a family. A rule is named after what it computes, not after who issues the token, where
more than one issuer may use it.
"""

from __future__ import annotations

from scanner.matcher.checksums import armour, azure, coded, crc, document
from scanner.matcher.checksums.azure import marvin32
from scanner.matcher.checksums.rule import ChecksumRule

__all__ = ["CHECKSUMS", "ChecksumRule", "marvin32"]

CHECKSUMS: dict[str, ChecksumRule] = {
    **azure.RULES,
    **crc.RULES,
    **coded.RULES,
    **document.RULES,
    **armour.RULES,
}
