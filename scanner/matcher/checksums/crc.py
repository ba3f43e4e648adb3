"""CRC32 as issuers write it into their tokens: in base 62, base 36 or hex.

Sources: GitHub's "behind the token format" post (npm uses the same), GitLab's design document of
routable tokens, Grafana's service-account key generator, Cloudflare's and Atlassian's own tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from scanner.matcher.checksums.rule import ChecksumRule, digits

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


def _appended(count: int, compute: Callable[[bytes], bytes]) -> ChecksumRule:
    """The rule of a checksum in the last `count` characters over what stands before them."""
    return ChecksumRule(
        lambda token: len(token) > count and token[-count:] == compute(token[:-count]),
        lambda token: token[:-count] + compute(token[:-count]) if len(token) > count else None,
    )


def _base62(before: bytes) -> bytes:
    """Six digits over what stands between the prefix's underscore and the checksum."""
    return digits(zlib.crc32(before.partition(b"_")[2]), 62).rjust(6, "0").encode()


def _body_hex(before: bytes) -> bytes:
    return b"%08x" % zlib.crc32(before.partition(b"_")[2])


def _all_hex(before: bytes) -> bytes:
    return b"%08X" % zlib.crc32(before)


def _little_hex(before: bytes) -> bytes:
    return zlib.crc32(before.removesuffix(b"_")).to_bytes(4, "little").hex().encode()


def _routable_check(before: bytes) -> bytes:
    return digits(zlib.crc32(before), 36, _BASE36).rjust(7, "0").encode()


def _routable_payload(token: bytes) -> bytes | None:
    """The payload of a token in either form: `<prefix><payload>.[<version>.]<length><checksum>`."""
    parts = token[:-9].split(b".")
    versions = parts[1:-1]
    if len(parts) not in {2, 3} or parts[-1] or any(len(version) != 2 for version in versions):
        return None
    return parts[0].partition(b"-")[2] or None


def _lengths(payload: bytes) -> tuple[bytes, ...]:
    """How its length may be written; a runner's payload follows a mark of how it was made."""
    bare = payload[3:] if payload[:1] == b"t" and payload[2:3] == b"_" else payload
    return tuple(digits(len(text), 36, _BASE36).rjust(2, "0").encode() for text in (bare, payload))


def _routable_verify(token: bytes) -> bool:
    payload = _routable_payload(token)
    return (
        payload is not None
        and token[-9:-7] in _lengths(payload)
        and token[-7:] == _routable_check(token[:-7])
    )


def _routable_complete(token: bytes) -> bytes | None:
    payload = _routable_payload(token)
    if payload is None:
        return None
    before = token[:-9] + _lengths(payload)[0]
    return before + _routable_check(before)


RULES = {
    "crc32-base62-6": _appended(6, _base62),
    "crc32-hex-body": _appended(8, _body_hex),
    "crc32-hex-all": _appended(8, _all_hex),
    "crc32-hex-little": _appended(8, _little_hex),
    "gitlab-routable": ChecksumRule(_routable_verify, _routable_complete),
}
