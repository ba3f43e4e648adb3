"""Templates that tokens are made from, e.g. "ghp_{base62:30}{check:6}".

`{alphabet:count}` draws that many characters; `{check:count}` is the place of the checksum, which
the pattern's checksum rule fills; all else stands for itself.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

_DIGITS, _UPPER, _LOWER = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"

ALPHABETS = {
    "base62": _DIGITS + _UPPER + _LOWER,
    "base64": _UPPER + _LOWER + _DIGITS + "+/",
    "base64url": _UPPER + _LOWER + _DIGITS + "-_",
    "base58": "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz",
    "base32": _LOWER + "234567",
    "BASE32": _UPPER + "234567",
    "BASE36": _DIGITS + _UPPER,
    "BECH32": "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
    "letters": _UPPER + _LOWER,
    "hex": _DIGITS + "abcdef",
    "digits": _DIGITS,
    "check": "0",  # replaced when the checksum is computed
}
LEAST_BITS = 128  # of a token that is issued: it must not be guessed
_FIELD = re.compile(r"\{(\w+):(\d{1,4})\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: (alphabet, count) for each field, and the text around them."""

    parts: tuple[str | tuple[str, int], ...]

    @property
    def bits(self) -> float:
        """Entropy of one token, in bits."""
        return sum(
            part[1] * math.log2(len(ALPHABETS[part[0]]))
            for part in self.parts
            if not isinstance(part, str)
        )

    @property
    def checked(self) -> bool:
        """Whether it has a place for a checksum."""
        return any(part[0] == "check" for part in self.parts if not isinstance(part, str))

    def draw(self, source: random.Random) -> bytes:
        """Return one token; its checksum is not computed yet."""
        return "".join(
            part
            if isinstance(part, str)
            else "".join(source.choices(ALPHABETS[part[0]], k=part[1]))
            for part in self.parts
        ).encode()


def parse_template(text: str) -> Template:
    """Parse a template. Errors: `ValueError` for an unknown alphabet or a stray brace."""
    parts: list[str | tuple[str, int]] = []
    position = 0
    for field in _FIELD.finditer(text):
        if field[1] not in ALPHABETS:
            raise ValueError(
                f"unknown alphabet {field[1]} in generate; known: {', '.join(ALPHABETS)}"
            )
        parts += [text[position : field.start()], (field[1], int(field[2]))]
        position = field.end()
    parts.append(text[position:])
    if any("{" in part or "}" in part for part in parts if isinstance(part, str)):
        raise ValueError('a brace in generate that is no field such as "{base62:30}"')
    return Template(tuple(part for part in parts if part))
