"""Checksums of token formats: verify one, and complete one when a token is generated.

Sources: Microsoft's published identifiable-key format (Marvin32), the Azure DevOps legacy format,
GitHub's "behind the token format" post (CRC32 in base62; npm uses the same).
"""

from __future__ import annotations

import base64
import binascii
import secrets
import zlib
from collections.abc import Callable
from dataclasses import dataclass

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_MARVIN_SEED = 0x4465_6661_756C_7430  # the ASCII of "Default0", big-endian
_MASK = 0xFFFF_FFFF
_LEGACY_KINDS = (0xE0B9_692D, 0x1019_F92E)  # user token, application token
_LEGACY_CHECK = (22, 8, 7, 2)  # positions of the checksum's bytes, least significant first


@dataclass(frozen=True, slots=True)
class ChecksumRule:
    """`verify(token)` tells; `complete(token)` returns it with a right checksum, or None when the
    random part admits none and another must be drawn."""

    verify: Callable[[bytes], bool]
    complete: Callable[[bytes], bytes | None]


def _rotate(value: int, count: int) -> int:
    return ((value << count) | (value >> (32 - count))) & _MASK


def marvin32(data: bytes, seed: int) -> int:
    """Return the 32-bit Marvin hash (Microsoft's specification): both halves of the state XORed."""
    low, high = seed & _MASK, seed >> 32

    def mix(low: int, high: int) -> tuple[int, int]:
        high ^= low
        low = (_rotate(low, 20) + high) & _MASK
        high = _rotate(high, 9) ^ low
        low = (_rotate(low, 27) + high) & _MASK
        return low, _rotate(high, 19)

    whole = len(data) & ~3
    for begin in range(0, whole, 4):
        low = (low + int.from_bytes(data[begin : begin + 4], "little")) & _MASK
        low, high = mix(low, high)
    low = (low + int.from_bytes(data[whole:] + b"\x80", "little")) & _MASK
    low, high = mix(*mix(low, high))
    return low ^ high


def _base62(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits


def _azure_checks(token: bytes) -> tuple[bytes, bytes]:
    value = marvin32(base64.b64decode(token[:80]), _MARVIN_SEED)
    as_bytes = value.to_bytes(4, "little")
    plain = base64.b64encode(as_bytes)[:4]
    return plain, _base62(int.from_bytes(as_bytes, "big")).ljust(6, "0")[:4].encode()


def _azure_verify(token: bytes) -> bool:
    return token[80:84] in _azure_checks(token)


def _azure_complete(token: bytes) -> bytes | None:
    check = _azure_checks(token)[0]
    return token[:80] + check if check.isalnum() else None


def _legacy_parts(raw: bytes) -> tuple[int, int]:
    body = bytes(byte for index, byte in enumerate(raw) if index not in _LEGACY_CHECK)
    given = int.from_bytes(bytes(raw[index] for index in _LEGACY_CHECK), "little")
    return zlib.crc32(body), given


def _legacy_decode(token: bytes) -> bytes | None:
    try:
        # 52 characters hold 260 bits: 32 bytes and four bits of padding.
        return base64.b32decode(token.upper() + b"====")
    except binascii.Error:
        return None


def _legacy_verify(token: bytes) -> bool:
    raw = _legacy_decode(token)
    if raw is None or len(raw) != 32:
        return False
    crc, given = _legacy_parts(raw)
    return any(crc ^ kind == given for kind in _LEGACY_KINDS)


def _legacy_complete(_token: bytes) -> bytes | None:
    raw = bytearray(secrets.token_bytes(32))
    check = (_legacy_parts(bytes(raw))[0] ^ _LEGACY_KINDS[0]).to_bytes(4, "little")
    for index, byte in zip(_LEGACY_CHECK, check, strict=True):
        raw[index] = byte
    return base64.b32encode(raw).rstrip(b"=").lower()


def _crc_digits(token: bytes) -> bytes:
    body = token.partition(b"_")[2][:-6]
    return _base62(zlib.crc32(body)).rjust(6, "0").encode()


CHECKSUMS: dict[str, ChecksumRule] = {
    "azure-devops-marvin32": ChecksumRule(_azure_verify, _azure_complete),
    "azure-devops-legacy-crc32": ChecksumRule(_legacy_verify, _legacy_complete),
    "crc32-base62-6": ChecksumRule(
        lambda token: token[-6:] == _crc_digits(token),
        lambda token: token[:-6] + _crc_digits(token),
    ),
}
