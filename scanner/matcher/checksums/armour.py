"""Private keys in text armour: PEM (DER and OpenSSH inside) and OpenPGP.

Sources: RFC 7468 and 1421 (PEM, with the headers of an encrypted key), X.690 (DER), OpenSSH's
PROTOCOL.key, RFC 4880 and 9580 (OpenPGP armour and its CRC24).
"""

from __future__ import annotations

import base64
import hashlib
import re

from scanner.matcher.checksums.rule import ChecksumRule, decode64

_OPENSSH = b"openssh-key-v1\0"
_SEQUENCE = 0x30
_INTEGER = 0x02
_LONG = 0x80
# Line ends as they stand in a file, and as a string in a program, in JSON or in YAML writes them.
_ESCAPED = re.compile(rb"\\{1,8}[rn]")
_JOINED = re.compile(rb"[\"'][\s+,.\\]*[\"']")  # two strings in a row; elsewhere + is a digit
_HEADER = re.compile(rb"^[ \t#*>|]*[A-Za-z][A-Za-z-]*: ?.*$", re.MULTILINE)
_BREAK = re.compile(rb"[\s\\\"',|>#*]+")
_CRC24 = 0x86_4CFB
_CRC24_START = 0xB7_04CE
_LINE = 64
_LEAST_CIPHER = 16  # bytes of an encrypted key; the smallest whole key is longer
_OLD_SECRET, _NEW_SECRET = (0x94, 0x95, 0x96, 0x97), 0xC5


def _inside(token: bytes) -> tuple[bytes, bytes]:
    """The headers and the base64 text between the marks, as one run."""
    body = token.partition(b"KEY")[2].partition(b"-----")[2].rpartition(b"-----END")[0]
    lines = _JOINED.sub(b"\n", _ESCAPED.sub(b"\n", body))
    headers = b"\n".join(_HEADER.findall(lines))
    return headers, _BREAK.sub(b"", _HEADER.sub(b"", lines))


def _der_length(raw: bytes) -> tuple[int, int] | None:
    """Where the content of the DER sequence `raw` begins and ends."""
    if len(raw) < 2 or raw[0] != _SEQUENCE:
        return None
    if raw[1] < _LONG:
        return 2, 2 + raw[1]
    count = raw[1] - _LONG
    if not 0 < count < 4 or len(raw) < 2 + count:
        return None
    return 2 + count, 2 + count + int.from_bytes(raw[2 : 2 + count], "big")


def _pem_verify(token: bytes) -> bool:
    headers, text = _inside(token)
    raw = decode64(text)
    if raw is None:
        return False
    if b"OPENSSH" in token[:30]:
        return raw.startswith(_OPENSSH)
    if b"ENCRYPTED" in headers:  # the cipher's output has no structure
        return len(raw) >= _LEAST_CIPHER
    span = _der_length(raw)
    return span is not None and span[1] <= len(raw) and raw[span[0]] in {_INTEGER, _SEQUENCE}


def _der(raw: bytes) -> bytes:
    """A version and one octet string of `raw`, as the smallest PKCS 8 look-alike."""
    content = b"\x02\x01\x00\x04\x81" + bytes((len(raw),)) + raw
    return b"\x30\x81" + bytes((len(content),)) + content


def _wrapped(raw: bytes) -> bytes:
    text = base64.b64encode(raw)
    return b"\n".join(text[at : at + _LINE] for at in range(0, len(text), _LINE))


def _marks(token: bytes) -> tuple[bytes, bytes]:
    begin, _, rest = token.partition(b"\n")
    return begin, b"-----END" + rest.rpartition(b"-----END")[2]


def _pem_complete(token: bytes) -> bytes | None:
    """Between the marks that were drawn stands a key whose bytes follow from the rest."""
    begin, end = _marks(token)
    drawn = hashlib.shake_256(token).digest(160)
    raw = _OPENSSH + drawn if b"OPENSSH" in begin else _der(drawn[:120])
    return b"\n".join((begin, _wrapped(raw), end))


def _crc24_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        state = byte << 16
        for _ in range(8):
            state = state << 1 ^ (_CRC24 if state & 0x80_0000 else 0)
        table.append(state & 0xFF_FFFF)
    return tuple(table)


_CRC24_TABLE = _crc24_table()


def crc24(data: bytes) -> int:
    """Return the CRC24 of OpenPGP's armour."""
    state = _CRC24_START
    for byte in data:
        state = (state << 8 & 0xFF_FFFF) ^ _CRC24_TABLE[state >> 16 ^ byte]
    return state


def _pgp_verify(token: bytes) -> bool:
    _, text = _inside(token)
    text, check = (text[:-5], text[-4:]) if text[-5:-4] == b"=" else (text, b"")
    raw = decode64(text)
    if not raw or not (raw[0] in _OLD_SECRET or raw[0] == _NEW_SECRET):
        return False
    # RFC 9580 does without the checksum; one that is there must be right.
    return not check or decode64(check) == crc24(raw).to_bytes(3, "big")


def _pgp_complete(token: bytes) -> bytes | None:
    begin, end = _marks(token)
    raw = b"\x94\xa0" + hashlib.shake_256(token).digest(160)
    check = b"=" + base64.b64encode(crc24(raw).to_bytes(3, "big"))
    return b"\n".join((begin, b"", _wrapped(raw), check, end))


RULES = {
    "pem": ChecksumRule(_pem_verify, _pem_complete, look_alike=True),
    "openpgp": ChecksumRule(_pgp_verify, _pgp_complete, look_alike=True),
}
