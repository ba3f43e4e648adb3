"""Checksums of token formats: verify one, and complete one when a token is generated.

Sources: Microsoft's published identifiable-key format (Marvin32 as in .NET), the Azure DevOps
legacy format, GitHub's "behind the token format" post (CRC32 in base62; npm uses the same).
Every function here is total: bytes of another shape are simply not right.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable
from dataclasses import dataclass

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_MARVIN_SEED = 0x4465_6661_756C_7430  # the ASCII of "Default0", big-endian
_MASK = 0xFFFF_FFFF
_LEGACY_KINDS = (0xE0B9_692D, 0x1019_F92E)  # user token, application token
_LEGACY_CHECK = (22, 8, 7, 2)  # positions of the checksum's bytes, least significant first
_LEGACY_BYTES = 32
_AZURE_BODY = 80  # characters before the checksum
_AZURE_END = 84
_CRC_DIGITS = 6


@dataclass(frozen=True, slots=True)
class ChecksumRule:
    """`verify(token)` tells; `complete(token)` returns it with a right checksum in the checksum's
    own place, or None when the rest admits none and another must be drawn."""

    verify: Callable[[bytes], bool]
    complete: Callable[[bytes], bytes | None]


def marvin32(data: bytes, seed: int) -> int:
    """Return the 32-bit Marvin hash, as .NET defines it: both halves of the state XORed.

    Written out flat: a dense file calls it thousands of times.
    """
    low, high = seed & _MASK, seed >> 32
    whole = len(data) & ~3
    words = [int.from_bytes(data[begin : begin + 4], "little") for begin in range(0, whole, 4)]
    # The tail word carries the end mark; one empty word more mixes it through.
    for word in (*words, int.from_bytes(data[whole:] + b"\x80", "little"), 0):
        low = (low + word) & _MASK
        high ^= low
        low = (((low << 20) | (low >> 12)) + high) & _MASK
        high = (((high << 9) | (high >> 23)) & _MASK) ^ low
        low = (((low << 27) | (low >> 5)) + high) & _MASK
        high = ((high << 19) | (high >> 13)) & _MASK
    return low ^ high


def _base62(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits


def _azure_checks(token: bytes) -> tuple[bytes, ...]:
    """Both published renderings of the checksum; none for bytes that are not of the format."""
    if len(token) < _AZURE_END:
        return ()
    try:
        body = base64.b64decode(token[:_AZURE_BODY], validate=True)
    except binascii.Error:
        return ()
    value = marvin32(body, _MARVIN_SEED).to_bytes(4, "little")
    as_base62 = _base62(int.from_bytes(value, "big")).ljust(6, "0")
    return base64.b64encode(value)[:4], as_base62[:4].encode()


def _azure_verify(token: bytes) -> bool:
    return token[_AZURE_BODY:_AZURE_END] in _azure_checks(token)


def _azure_complete(token: bytes) -> bytes | None:
    for check in _azure_checks(token):
        if check.isalnum():
            return token[:_AZURE_BODY] + check + token[_AZURE_END:]
    return None


def _legacy_decode(token: bytes) -> bytes | None:
    try:
        # 52 characters hold 260 bits: 32 bytes and four bits of padding.
        raw = base64.b32decode(token.upper() + b"====")
    except binascii.Error:
        return None
    return raw if len(raw) == _LEGACY_BYTES else None


def _legacy_parts(raw: bytes | bytearray) -> tuple[int, int]:
    body = bytes(byte for index, byte in enumerate(raw) if index not in _LEGACY_CHECK)
    given = int.from_bytes(bytes(raw[index] for index in _LEGACY_CHECK), "little")
    return zlib.crc32(body), given


def _legacy_verify(token: bytes) -> bool:
    raw = _legacy_decode(token)
    if raw is None:
        return False
    crc, given = _legacy_parts(raw)
    return any(crc ^ kind == given for kind in _LEGACY_KINDS)


def _legacy_complete(token: bytes) -> bytes | None:
    decoded = _legacy_decode(token)
    if decoded is None:
        return None
    raw = bytearray(decoded)
    check = (_legacy_parts(raw)[0] ^ _LEGACY_KINDS[0]).to_bytes(4, "little")
    for index, byte in zip(_LEGACY_CHECK, check, strict=True):
        raw[index] = byte
    return base64.b32encode(raw).rstrip(b"=").lower()


def _crc_digits(token: bytes) -> bytes:
    """The six digits over what stands between the prefix's underscore and the checksum."""
    body = token.partition(b"_")[2][:-_CRC_DIGITS]
    return _base62(zlib.crc32(body)).rjust(_CRC_DIGITS, "0").encode()


CHECKSUMS: dict[str, ChecksumRule] = {
    "azure-devops-marvin32": ChecksumRule(_azure_verify, _azure_complete),
    "azure-devops-legacy-crc32": ChecksumRule(_legacy_verify, _legacy_complete),
    "crc32-base62-6": ChecksumRule(
        lambda token: token[-_CRC_DIGITS:] == _crc_digits(token),
        lambda token: token[:-_CRC_DIGITS] + _crc_digits(token),
    ),
}
