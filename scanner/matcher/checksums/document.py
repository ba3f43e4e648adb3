"""Tokens that carry a JSON document: JSON Web Tokens, Sentry, 1Password, Grafana.

Sources: RFC 7515 and 7519 (JWS compact form, JWT), Sentry's RFC 91 (organisation tokens), Grafana's
key generator.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from scanner.matcher.checksums.rule import ChecksumRule, decode64, encode64

_START = b"eyJ"  # base64 of {"


def _document(text: bytes) -> dict[str, Any] | None:
    """The JSON object in base64 `text`; None where there is none."""
    raw = decode64(text)
    if raw is None:
        return None
    try:
        content = json.loads(raw.decode())
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _jwt_parts(token: bytes) -> list[bytes]:
    """The three parts of the token that begins at the first document in `token`; else nothing."""
    begin = token.find(_START)
    parts = token[begin:].split(b".") if begin >= 0 else []
    return parts if len(parts) == 3 else []


def _jwt_verify(token: bytes) -> bool:
    parts = _jwt_parts(token)
    if not parts or decode64(parts[2]) is None:
        return False
    header = _document(parts[0])
    return header is not None and isinstance(header.get("alg"), str) and bool(_document(parts[1]))


def _jwt_complete(token: bytes) -> bytes | None:
    """Header and payload are made of what was drawn; the signature is what was drawn."""
    parts = _jwt_parts(token)
    if not parts:
        return None
    header = _encoded({"alg": "HS256", "typ": "JWT"})
    payload = _encoded({"sub": hashlib.sha256(parts[1]).hexdigest()[:24], "iat": 1_700_000_000})
    return token[: token.find(_START)] + b".".join((header, payload, parts[2]))


def _encoded(document: dict[str, Any]) -> bytes:
    return encode64(json.dumps(document, separators=(",", ":")).encode())


def _json_verify(token: bytes) -> bool:
    begin = token.find(_START)
    return begin >= 0 and _document(token[begin:]) is not None


def _json_complete(token: bytes) -> bytes | None:
    """As long as what was drawn, or a little shorter: one string fills the document."""
    begin = token.find(_START)
    if begin < 0:
        return None
    drawn = token[begin:].rstrip(b"=")
    fill = hashlib.shake_256(drawn).hexdigest(len(drawn))[: len(drawn) * 3 // 4 - 12]
    return token[:begin] + _encoded({"k": fill, "n": ""})


def _sentry_verify(token: bytes) -> bool:
    parts = token.split(b"_")
    document = _document(parts[1]) if len(parts) == 3 else None
    return document is not None and "iat" in document


def _sentry_complete(token: bytes) -> bytes | None:
    parts = token.split(b"_")
    if len(parts) != 3:
        return None
    number = int.from_bytes(hashlib.sha256(parts[1]).digest()[:3], "big")
    document = {
        "iat": 1_700_000_000 + number,
        "url": "https://sentry.example",
        "region_url": "https://us.sentry.example",
        "org": f"org{number:08}",
    }
    return b"_".join((parts[0], _encoded(document), parts[2]))


RULES = {
    "jwt": ChecksumRule(_jwt_verify, _jwt_complete, look_alike=True),
    "json-document": ChecksumRule(_json_verify, _json_complete, look_alike=True),
    "sentry-org": ChecksumRule(_sentry_verify, _sentry_complete, look_alike=True),
}
