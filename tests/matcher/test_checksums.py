"""The checksums, against vectors where there are any and by their own laws where not."""

from __future__ import annotations

import base64
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.matcher.checksums import CHECKSUMS, marvin32

# Microsoft's own 64-bit vectors for Marvin32 (.NET's tests); the halves XORed are what is used.
VECTORS = [
    ("", 0x30ED35C100CD3C7D),
    ("af", 0x48E73FC77D75DDC1),
    ("e70f", 0xB5F6E1FC485DBFF8),
    ("37f495", 0xF0B07C789B8CF7E8),
    ("8642dc59", 0x7008F2E87E9CF556),
    ("153fb79826", 0xE6C08C6DA2AFA997),
    ("0932e6246c47", 0x6F04BF1A5EA24060),
    ("ab427ea8d10fc7", 0xE11847E4F0678C41),
]


@pytest.mark.parametrize(("data", "both"), VECTORS)
def test_marvin32_vectors(data: str, both: int) -> None:
    expected = (both >> 32) ^ (both & 0xFFFF_FFFF)
    assert marvin32(bytes.fromhex(data), 0x004F_B61A_001B_DBCC) == expected


def azure(seed: int) -> bytes:
    rng = random.Random(seed)
    body = "".join(rng.choices("ABCDEFGHIJKLMNOPabcdefghijkl0123456789", k=76))
    return body.encode() + b"AZDO0000"


def test_azure_accepts_both_renderings() -> None:
    rule = CHECKSUMS["azure-devops-marvin32"]
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for seed in range(50):
        token = azure(seed)
        value = marvin32(base64.b64decode(token[:80]), int.from_bytes(b"Default0", "big"))
        number, text = int.from_bytes(value.to_bytes(4, "little"), "big"), ""
        while number:
            number, digit = divmod(number, 62)
            text = digits[digit] + text
        plain = base64.b64encode(value.to_bytes(4, "little"))[:4]
        assert rule.verify(token[:80] + plain)
        assert rule.verify(token[:80] + text.ljust(6, "0")[:4].encode())
        assert rule.verify(token[:80] + plain + b"Zz==")
        assert not rule.verify(token[:80] + bytes((plain[0] ^ 1,)) + plain[1:])


@pytest.mark.parametrize("kind", [0xE0B9692D, 0x1019F92E])
def test_legacy_takes_both_kinds_of_token(kind: int) -> None:
    raw = bytearray(random.Random(kind).randbytes(32))
    body = bytes(b for i, b in enumerate(raw) if i not in {2, 7, 8, 22})
    check = zlib.crc32(body) ^ kind
    raw[22], raw[8], raw[7], raw[2] = check.to_bytes(4, "little")
    token = base64.b32encode(raw).rstrip(b"=").lower()
    assert CHECKSUMS["azure-devops-legacy-crc32"].verify(token)
    raw[0] ^= 1
    token = base64.b32encode(raw).rstrip(b"=").lower()
    assert not CHECKSUMS["azure-devops-legacy-crc32"].verify(token)


def test_crc_is_left_padded_and_leaves_the_prefix_out() -> None:
    rule = CHECKSUMS["crc32-base62-6"]
    assert zlib.crc32(b"") == 0
    assert rule.verify(b"ghp_000000")
    token = rule.complete(b"ghp_" + b"q" * 36)
    assert token is not None
    assert rule.verify(token)
    assert rule.verify(b"npm_" + token[4:])
    assert not rule.verify(token[:5] + b"z" + token[6:])


@pytest.mark.parametrize("name", sorted(CHECKSUMS))
@given(data=st.one_of(st.binary(max_size=100), st.text("abc234_=", max_size=100).map(str.encode)))
def test_checksums_are_total(name: str, data: bytes) -> None:
    rule = CHECKSUMS[name]
    assert rule.verify(data) in {True, False}
    completed = rule.complete(data)
    assert completed is None or isinstance(completed, bytes)


@given(seed=st.integers(0, 2**32))
def test_completing_changes_only_the_checksum(seed: int) -> None:
    token = azure(seed) + b"Zz=="
    completed = CHECKSUMS["azure-devops-marvin32"].complete(token)
    if completed is not None:
        assert completed[:80] + completed[84:] == token[:80] + token[84:]
        assert CHECKSUMS["azure-devops-marvin32"].verify(completed)
