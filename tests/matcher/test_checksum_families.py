"""Checksums and structures against published vectors, other implementations, and their own laws."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import zlib
from collections.abc import Callable
from datetime import UTC, datetime

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from scanner.matcher.checksums import CHECKSUMS, marvin32
from scanner.matcher.checksums.armour import crc24
from scanner.matcher.pattern import Pattern
from scanner.matcher.reference import spans
from scanner.patterns.generate import generate
from scanner.patterns.loader import load

CHECKED = [pattern for pattern in load().patterns if pattern.checksum]
PEM, BECH32, JWT = CHECKSUMS["pem"], CHECKSUMS["bech32"], CHECKSUMS["jwt"]
Format, Hidden = serialization.PrivateFormat, serialization.BestAvailableEncryption(b"a passphrase")
Key = rsa.RSAPrivateKey | dsa.DSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
KEYS: dict[str, Key] = {
    "RSA": rsa.generate_private_key(65537, 2048),
    "DSA": dsa.generate_private_key(2048),
    "EC": ec.generate_private_key(ec.SECP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("pattern", CHECKED, ids=lambda p: p.id)
def test_a_generated_token_is_right_and_a_changed_one_is_not(pattern: Pattern) -> None:
    rule = CHECKSUMS[pattern.checksum or ""]
    rng = random.Random(pattern.id)
    token = generate(pattern, rng).reveal()
    assert rule.verify(token)
    wrong = 0
    for _ in range(60):
        at = rng.randrange(len(token))
        changed = token[:at] + bytes((token[at] ^ 1,)) + token[at + 1 :]
        wrong += not rule.verify(changed)
    # A structure has bytes that say nothing; a checksum covers (nearly) every byte.
    assert wrong >= (40 if {"crc32", "marvin32"} & set((pattern.checksum or "").split("-")) else 1)


@pytest.mark.parametrize("name", sorted(CHECKSUMS))
@given(data=st.data())
def test_verify_and_complete_take_anything(name: str, data: st.DataObject) -> None:
    rule = CHECKSUMS[name]
    samples = [generate(p, random.Random(1)).reveal() for p in CHECKED if p.checksum == name]
    token = data.draw(st.one_of(st.binary(max_size=400), st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(token)))
        cut = data.draw(st.integers(0, 20))
        token = token[:at] + data.draw(st.binary(max_size=8)) + token[at + cut :]
    assert rule.verify(token) in {True, False}
    completed = rule.complete(token)
    assert completed is None or isinstance(completed, bytes)


@pytest.mark.parametrize(
    ("text", "right"),
    [  # of BIP 173
        (b"A12UEL5L", True),
        (b"a12uel5l", True),
        (b"an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
         True),
        (b"abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw", True),
        (b"split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w", True),
        (b"split1cheo2y9e2w", False),
        (b"A1G7SGD8", False),
        (b"10a06t8", False),
        (b"1qzzfhee", False),
        (b"a12UEL5L", False),
    ],
)  # fmt: skip
def test_bech32_vectors(text: bytes, right: bool) -> None:
    assert BECH32.verify(text) is right


def test_an_age_identity_holds_32_bytes() -> None:
    # What `age` itself decodes: 52 characters of five bits, 32 bytes and four bits of zero.
    token = generate("age-identity", random.Random(1)).reveal()
    assert len(token) == 74
    assert BECH32.verify(token.lower())


def test_base58check_by_another_way() -> None:
    rule = CHECKSUMS["bip32"]
    for version, prefix in ((0x0488ADE4, b"xprv"), (0x04358394, b"tprv")):
        body = version.to_bytes(4, "big") + random.Random(1).randbytes(41) + b"\0" + b"k" * 32
        checked = body + _double(body)
        token = _base58(checked)
        assert token.startswith(prefix)
        assert len(token) == 111
        assert rule.verify(token)
        assert not rule.verify(_base58(body + b"\0\0\0\0"))
        public = body[:45] + b"\2" + body[46:]
        assert not rule.verify(_base58(public + _double(public)))


def _double(data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()[:4]


def _base58(raw: bytes) -> bytes:
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number = int.from_bytes(raw, "big")
    count = 0
    while 58**count <= number:
        count += 1
    return "".join(
        alphabet[number // 58**place % 58] for place in range(count - 1, -1, -1)
    ).encode()


def test_crc24_check_value() -> None:
    assert crc24(b"123456789") == 0x21CF02  # the catalogue's check value of CRC-24/OPENPGP


def test_grafana_writes_its_checksum_from_the_least_byte() -> None:
    token = generate("grafana-service-account", random.Random(2)).reveal()
    value = zlib.crc32(token[:-9])
    assert token[-8:].decode() == value.to_bytes(4, "little").hex()


@pytest.mark.parametrize("version", [b"", b"01."])
@pytest.mark.parametrize("prefix", [b"glpat-", b"glrt-t1_"])
def test_gitlab_routable_as_its_design_document_makes_it(prefix: bytes, version: bytes) -> None:
    payload = base64.urlsafe_b64encode(b"o:1\nu:2a\n" + bytes(range(16)) + b"\x10").rstrip(b"=")
    before = prefix + payload + b"." + version + _base36(len(payload), 2)
    token = before + _base36(zlib.crc32(before), 7)
    rule = CHECKSUMS["gitlab-routable"]
    assert rule.verify(token)
    assert not rule.verify(token[:8] + b"Q" + token[9:])
    assert not rule.verify(token.replace(b".", b".x."))
    assert rule.complete(before[:-2] + b"0" * 9) == token


def _base36(number: int, count: int) -> bytes:
    text = ""
    for _ in range(count):
        number, digit = divmod(number, 36)
        text = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + text
    return text.encode()


def test_azure_keys_by_their_bytes() -> None:
    rule = CHECKSUMS["azure-identifiable-marvin32"]
    seed = int.from_bytes(b"Default0", "big")
    raw = bytearray(random.Random(3).randbytes(60))
    raw[57:60] = base64.b64decode("+ASt")
    key = base64.b64encode(bytes(raw) + marvin32(bytes(raw), seed).to_bytes(4, "little"))
    assert (len(key), key[76:80]) == (88, b"+ASt")
    assert rule.verify(key)
    # Another service's seed does not do.
    other = marvin32(bytes(raw), int.from_bytes(b"AbAcct00", "big")).to_bytes(4, "little")
    assert not rule.verify(base64.b64encode(bytes(raw) + other))


def test_json_web_tokens_of_another_implementation() -> None:
    secret = "x" * 64
    for algorithm in ("HS256", "HS384", "HS512"):
        token = jwt.encode({"sub": "1", "exp": datetime.now(UTC)}, secret, algorithm).encode()
        assert JWT.verify(token)
        assert not JWT.verify(token[3:])
        assert JWT.verify(b"ghs_1234_" + token)
    signed = jwt.encode({"a": 1}, KEYS["RSA"], "RS256", headers={"kid": "k" * 40}).encode()
    assert JWT.verify(signed)
    head = base64.urlsafe_b64encode(json.dumps({"typ": "x"}).encode()).rstrip(b"=")
    assert not JWT.verify(head + signed[signed.index(b".") :])  # no algorithm


def pem(key: Key, form: Format, hidden: bool) -> bytes:
    algorithm = Hidden if hidden else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, algorithm).rstrip()


WRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda text: text,
    "with CRLF": lambda text: text.replace(b"\n", b"\r\n"),
    "indented": lambda text: text.replace(b"\n", b"\n      "),
    "as a JSON string": lambda text: json.dumps(text.decode()).encode()[1:-1],
    "escaped twice": lambda text: text.replace(b"\n", b"\\\\n"),
    "put together with +": lambda text: text.replace(b"\n", b'\\n" +\n  "'),
    "put together in C": lambda text: text.replace(b"\n", b'\\n"\n  "'),
    "in a list": lambda text: text.replace(b"\n", b'",\n "'),
    "in a comment": lambda text: text.replace(b"\n", b"\n# "),
    "on one line": lambda text: text.replace(b"\n", b" "),
}


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("name", KEYS)
def test_keys_of_another_implementation(name: str, how: str) -> None:
    (pattern,) = load(only=["private-key-pem"]).patterns
    forms = [(Format.PKCS8, False), (Format.PKCS8, True), (Format.OpenSSH, False)]
    if name != "Ed25519":
        forms += [(Format.TraditionalOpenSSL, False)]
        if how != "on one line":
            forms += [(Format.TraditionalOpenSSL, True)]
    if name == "DSA":
        forms.remove((Format.OpenSSH, False))  # neither OpenSSH writes these any more
    for form, hidden in forms:
        text = WRITTEN[how](pem(KEYS[name], form, hidden))
        assert spans(pattern, b"x " + text + b" y") == [(2, 2 + len(text))], (form, hidden)
        assert PEM.verify(text), (form, hidden)


def test_what_only_looks_like_a_key() -> None:
    for body in (b"...", b"MII" + b"A" * 80, b"your key here " * 8, b"e" * 64):
        text = b"-----BEGIN RSA PRIVATE KEY-----\n" + body + b"\n-----END RSA PRIVATE KEY-----"
        assert not PEM.verify(text)
    certificate = base64.b64encode(b"\x30\x82\x01\x0a" + b"\x31" * 300)
    text = b"-----BEGIN PRIVATE KEY-----\n" + certificate + b"\n-----END PRIVATE KEY-----"
    assert not PEM.verify(text)


def test_openpgp_with_and_without_its_checksum() -> None:
    rule = CHECKSUMS["openpgp"]
    token = generate("private-key-pgp", random.Random(5)).reveal()
    lines = token.split(b"\n")
    check = next(line for line in lines if line.startswith(b"=") and len(line) == 5)
    assert rule.verify(token)
    assert rule.verify(token.replace(check + b"\n", b""))  # RFC 9580 does without
    assert not rule.verify(token.replace(check, b"=AAAA"))
    assert rule.verify(token.replace(b"\n\n", b"\nVersion: GnuPG v2 (Linux)\nComment: x\n\n", 1))
    public = base64.b64encode(b"\x99\x01" + b"q" * 200)
    assert not rule.verify(lines[0] + b"\n\n" + public + b"\n" + lines[-1])


def test_a_macaroon_is_read_to_its_end() -> None:
    rule = CHECKSUMS["macaroon-2"]
    token = generate("pypi-token", random.Random(1)).reveal()
    assert token.startswith(b"pypi-AgEIcHlwaS5vcmc")
    raw = base64.urlsafe_b64decode(token[5:] + b"=" * (-len(token[5:]) % 4))
    for cut in (raw[:-1], raw + b"x", raw[:40], b"\1" + raw[1:], raw[:-34] + b"\6\x1f" + raw[-31:]):
        assert not rule.verify(b"pypi-" + base64.urlsafe_b64encode(cut).rstrip(b"="))


def test_a_discord_token_begins_with_a_snowflake() -> None:
    rule = CHECKSUMS["discord-snowflake"]
    for user in (10**16, 10**17 + 7, 10**18 + 3, 10**19):
        first = base64.urlsafe_b64encode(str(user).encode()).rstrip(b"=")
        assert rule.verify(first + b".AAAAAA." + b"a" * 27)
    first = base64.urlsafe_b64encode(b"12345678901234567x").rstrip(b"=")
    assert not rule.verify(first + b".AAAAAA." + b"a" * 27)
