"""What a checksum rule is, and what several families of them share."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_STANDARD = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class ChecksumRule:
    """`verify(token)` tells; `complete(token)` returns it with a right checksum in the checksum's
    own place, or None when the rest admits none and another must be drawn.

    Both are total: bytes of another shape are simply not right. Where a format has no checksum but
    a structure that can be parsed, `verify` parses it and `complete` builds one of what was drawn.
    """

    verify: Callable[[bytes], bool]
    complete: Callable[[bytes], bytes | None]
    look_alike: bool = False  # completed tokens only look real: nobody could issue these


def decode64(text: bytes) -> bytes | None:
    """Decode base64 of either alphabet, padded or not; None for what is neither."""
    plain = text.translate(_STANDARD).rstrip(b"=")
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        return None


def encode64(data: bytes) -> bytes:
    """Encode as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def digits(number: int, base: int, alphabet: str = BASE62) -> str:
    """Write `number` in `base`, the most significant digit first; nothing for zero."""
    text = ""
    while number:
        number, digit = divmod(number, base)
        text = alphabet[digit] + text
    return text
