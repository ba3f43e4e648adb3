"""Microsoft's families: Marvin32 in Azure's identifiable keys, CRC32 in old Azure DevOps tokens.

Sources: Microsoft's security-utilities (formats and seeds of identifiable keys; Marvin32 as in
.NET) and the Azure DevOps legacy format.
"""

from __future__ import annotations

import base64
import binascii
import zlib

from scanner.matcher.checksums.rule import ChecksumRule, decode64, digits

_MASK = 0xFFFF_FFFF
_LEGACY_KINDS = (0xE0B9_692D, 0x1019_F92E)  # user token, application token
_LEGACY_CHECK = (22, 8, 7, 2)  # positions of the checksum's bytes, least significant first
_LEGACY_BYTES = 32
_DEFAULT = int.from_bytes(b"Default0", "big")
_AZURE_BODY = 80  # characters before the checksum
_AZURE_END = 84
_CHECK_BYTES = 4  # of an identifiable key: its last

# A seed is the ASCII of a name, big-endian; each signature has one for every use of its keys.
_SEED_NAMES = {
    b"+ASt": ("Default0",),
    b"+ABa": ("AbAccct0",),
    b"+AMC": ("Classic0",),
    b"+ACR": ("ACRDflt0",),
    b"AzCa": ("Access00",),
    b"AzFu": ("Functi00", "Master00", "System00"),
    b"AzSe": ("Query000", "PAdmin00"),
    b"AZEG": ("SendRecv",),
    b"AIoT": ("IoTHub00", "DpsKey00", "Device00"),
    b"APIM": ("Tenant00", "IoTHub00", "Gatewy00", "GitKey00"),
    b"ACDb": (
        "SysAll00", "Resour00", "MastRO00", "SystRO00", "Encryp00", "MastRW00", "SystRW00",
    ),
}  # fmt: skip
_MESSAGING = ("Default0", "System00", "Unknown0", "Send0000", "Manage00", "Listen00")
_SIGNATURE_AT = {44: 33, 52: 42, 56: 44, 88: 76}  # by the length of the key


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


def _azure_checks(token: bytes) -> tuple[bytes, ...]:
    """Both published renderings of the checksum; none for bytes that are not of the format."""
    if len(token) < _AZURE_END:
        return ()
    try:
        body = base64.b64decode(token[:_AZURE_BODY], validate=True)
    except binascii.Error:
        return ()
    value = marvin32(body, _DEFAULT).to_bytes(4, "little")
    as_base62 = digits(int.from_bytes(value, "big"), 62).ljust(6, "0")
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


def _seeds() -> dict[bytes, tuple[int, ...]]:
    names = _SEED_NAMES | dict.fromkeys((b"+ASb", b"+AEh", b"+ARm"), _MESSAGING)
    return {
        signature: tuple(int.from_bytes(name.encode(), "big") for name in kinds)
        for signature, kinds in names.items()
    }


_SEEDS = _seeds()


def _key_parts(token: bytes) -> tuple[bytes, tuple[int, ...]]:
    """The decoded key and the seeds of its signature; no seeds for bytes of another shape."""
    begin = _SIGNATURE_AT.get(len(token))
    seeds = _SEEDS.get(token[begin : begin + 4], ()) if begin else ()
    raw = decode64(token) if seeds else None
    return (raw, seeds) if raw is not None else (b"", ())


def _key_verify(token: bytes) -> bool:
    raw, seeds = _key_parts(token)
    given = int.from_bytes(raw[-_CHECK_BYTES:], "little")
    return any(marvin32(raw[:-_CHECK_BYTES], seed) == given for seed in seeds)


def _key_complete(token: bytes) -> bytes | None:
    raw, seeds = _key_parts(token)
    if not seeds:
        return None
    body = raw[:-_CHECK_BYTES]
    key = base64.b64encode(body + marvin32(body, seeds[0]).to_bytes(_CHECK_BYTES, "little"))
    # Functions keys are base64url; search keys are drawn until nothing needs a choice.
    if b"AzFu" in token:
        return key.translate(bytes.maketrans(b"+/", b"-_"))
    return None if b"AzSe" in token and not key.isalnum() else key


RULES = {
    "azure-devops-marvin32": ChecksumRule(_azure_verify, _azure_complete),
    "azure-devops-legacy-crc32": ChecksumRule(_legacy_verify, _legacy_complete),
    "azure-identifiable-marvin32": ChecksumRule(_key_verify, _key_complete),
}
