"""Checksums and structures of the encoding itself: bech32, base58check, macaroons, snowflakes.

Sources: BIP 173 (bech32, as age uses it), the Bitcoin wiki (base58check) and BIP 32, libmacaroons'
binary format version 2 (PyPI), Discord's reference (a token begins with its user's id).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from scanner.matcher.checksums.rule import ChecksumRule, decode64, encode64

_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_VALUES = {ord(letter): value for value, letter in enumerate(_BECH32)}
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_CHECK = 6
_BASE58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUES = {letter: value for value, letter in enumerate(_BASE58)}
_MOST_BASE58 = 128  # characters; the arithmetic is quadratic
_CHECK = 4
_EXTENDED_KEY = 78  # bytes of a serialised BIP 32 key
_KEY_OFFSET = 45  # of the byte that is zero before a private key
_LOCATION, _IDENTIFIER, _VERIFIER, _SIGNATURE = 1, 2, 4, 6
_SNOWFLAKE = 17, 20  # digits


def _polymod(values: Iterable[int]) -> int:
    state = 1
    for value in values:
        top, state = state >> 25, ((state & 0x1FF_FFFF) << 5) ^ value
        for bit, generator in enumerate(_GENERATORS):
            if top >> bit & 1:
                state ^= generator
    return state


def _bech32_parts(token: bytes) -> tuple[bytes, list[int]] | None:
    """The human-readable part and the values of the data part, the checksum's included."""
    if token != token.upper() and token != token.lower():
        return None
    readable, separator, data = token.lower().rpartition(b"1")
    values = [_BECH32_VALUES.get(byte, -1) for byte in data]
    if not separator or not readable or len(values) < _BECH32_CHECK or -1 in values:
        return None
    return readable, values


def _expanded(readable: bytes) -> list[int]:
    return [byte >> 5 for byte in readable] + [0] + [byte & 31 for byte in readable]


def _bech32_verify(token: bytes) -> bool:
    parts = _bech32_parts(token)
    return parts is not None and _polymod(_expanded(parts[0]) + parts[1]) == 1


def _bech32_complete(token: bytes) -> bytes | None:
    parts = _bech32_parts(token)
    if parts is None:
        return None
    readable, values = parts
    values = values[:-_BECH32_CHECK]
    state = _polymod([*_expanded(readable), *values, *[0] * _BECH32_CHECK]) ^ 1
    check = "".join(_BECH32[state >> 5 * (5 - place) & 31] for place in range(_BECH32_CHECK))
    whole = token[:-_BECH32_CHECK].lower() + check.encode()
    return whole.upper() if token == token.upper() else whole


def _base58_decode(token: bytes) -> bytes | None:
    if not token or len(token) > _MOST_BASE58:
        return None
    number = 0
    for letter in token:
        value = _BASE58_VALUES.get(letter)
        if value is None:
            return None
        number = number * 58 + value
    zeros = len(token) - len(token.lstrip(b"1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _base58_encode(raw: bytes) -> bytes:
    number, text = int.from_bytes(raw, "big"), bytearray()
    while number:
        number, value = divmod(number, 58)
        text.append(_BASE58[value])
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    return b"1" * zeros + bytes(reversed(text))


def _sha256d(data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()[:_CHECK]


def _extended_verify(token: bytes) -> bool:
    raw = _base58_decode(token)
    return (
        raw is not None
        and len(raw) == _EXTENDED_KEY + _CHECK
        and raw[_KEY_OFFSET] == 0
        and raw[-_CHECK:] == _sha256d(raw[:-_CHECK])
    )


def _extended_complete(token: bytes) -> bytes | None:
    """Keep the version that was drawn; the rest follows from what was drawn."""
    raw = _base58_decode(token)
    if raw is None or len(raw) != _EXTENDED_KEY + _CHECK:
        return None
    body = raw[:_KEY_OFFSET] + b"\0" + raw[_KEY_OFFSET + 1 : -_CHECK]
    return _base58_encode(body + _sha256d(body))


def _packet(raw: bytes, at: int) -> tuple[int, int, int] | None:
    """The type of the packet at `at`, and where its data begins and ends; None past the end."""
    if at + 1 >= len(raw):
        return None
    kind, length, shift, at = raw[at], 0, 0, at + 1
    while True:
        if at >= len(raw) or shift > 14:  # no packet of ours needs three bytes of length
            return None
        byte = raw[at]
        length, shift, at = length | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            break
    return (kind, at, at + length) if at + length <= len(raw) else None


def _section(raw: bytes, at: int, *, caveat: bool) -> int | None:
    """Where the section of packets at `at` ends (behind its end mark); None where it is none."""
    order = [_LOCATION, _IDENTIFIER, _VERIFIER] if caveat else [_LOCATION, _IDENTIFIER]
    seen: list[int] = []
    while at < len(raw) and raw[at] != 0:
        packet = _packet(raw, at)
        if packet is None or packet[0] not in order or packet[0] <= max(seen, default=0):
            return None
        seen.append(packet[0])
        at = packet[2]
    return at + 1 if at < len(raw) and _IDENTIFIER in seen else None


def _macaroon(raw: bytes) -> bool:
    """Whether `raw` is a macaroon in binary format 2: head, caveats, end mark, signature."""
    at = _section(raw, 1, caveat=False) if raw[:1] == b"\2" else None
    while at is not None and at < len(raw) and raw[at] != 0:
        at = _section(raw, at, caveat=True)
    packet = _packet(raw, at + 1) if at is not None else None
    return (
        packet is not None
        and packet[0] == _SIGNATURE
        and packet[2] - packet[1] == hashlib.sha256().digest_size
        and packet[2] == len(raw)
    )


def _macaroon_verify(token: bytes) -> bool:
    raw = decode64(token.partition(b"-")[2])
    return raw is not None and _macaroon(raw)


def _macaroon_complete(token: bytes) -> bytes | None:
    """Keep the location that was drawn; identifier and signature are made of the rest."""
    prefix, separator, body = token.partition(b"-")
    raw = decode64(body)
    packet = _packet(raw, 1) if raw is not None else None
    if raw is None or packet is None or packet[0] != _LOCATION:
        return None
    identifier = hashlib.sha256(b"identifier" + raw).digest()
    caveat = b"[0, %d, %d]" % (int.from_bytes(identifier[:4], "big"), len(body))
    made = raw[: packet[2]] + _packed(_IDENTIFIER, identifier.hex()[:36].encode()) + b"\0"
    made += _packed(_IDENTIFIER, caveat) + b"\0\0"
    made += _packed(_SIGNATURE, hashlib.sha256(raw).digest())
    return prefix + separator + encode64(made)


def _packed(kind: int, data: bytes) -> bytes:
    return bytes((kind, len(data))) + data


def _snowflake_verify(token: bytes) -> bool:
    raw = decode64(token.partition(b".")[0])
    return raw is not None and raw.isdigit() and _SNOWFLAKE[0] <= len(raw) <= _SNOWFLAKE[1]


def _snowflake_complete(token: bytes) -> bytes | None:
    first, separator, rest = token.partition(b".")
    number = int.from_bytes(hashlib.sha256(first).digest()[:8], "big") % 10**18 + 10**18
    return encode64(str(number).encode()) + separator + rest


RULES = {
    "bech32": ChecksumRule(_bech32_verify, _bech32_complete),
    "bip32": ChecksumRule(_extended_verify, _extended_complete, look_alike=True),
    "macaroon-2": ChecksumRule(_macaroon_verify, _macaroon_complete, look_alike=True),
    "discord-snowflake": ChecksumRule(_snowflake_verify, _snowflake_complete, look_alike=True),
}
