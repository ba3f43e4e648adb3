"""GitHub's push webhook: from signed bytes to a push.

The delivery and event headers lie outside the signature, so the event is told from the signed body,
and a body is taken once by (hook, digest). The payload's clone URL is ignored.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs

from scanner.errors import PayloadInvalidError, RepositoryForbiddenError, SignatureInvalidError
from scanner.settings import Hook

MAX_BODY = 25 * 1024 * 1024  # bytes; GitHub sends nothing larger
# An enterprise-managed user's name ends in an underscore and the enterprise's short code.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}/(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}")
_SIGNATURE = re.compile(r"sha256=([0-9a-f]{64})")
_OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MAX_REF = 4_096
_HALF = re.compile("[\ud800-\udfff]")  # half a character: JSON can say it, no encoding can hold it


@dataclass(frozen=True, slots=True)
class Push:
    """A push as announced: free text raw but well-formed, object ids checked."""

    hook: str
    body_digest: str
    repository: str
    ref: str
    before: str
    after: str
    forced: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """GitHub asks whether we are here."""

    hook: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A signed event of a kind we do not use."""

    hook: str


def require_signature(signature: str | None) -> str:
    """Return the hex digits of the header X-Hub-Signature-256, unless it cannot be one."""
    found = _SIGNATURE.fullmatch(signature or "")
    if found is None:
        raise SignatureInvalidError("The header X-Hub-Signature-256 is missing or malformed.")
    return found[1]


def verify(hooks: Sequence[Hook], body: bytes | bytearray, signature: str | None) -> Hook:
    """Return the hook whose secret signed `body`. Every secret is tried, in constant time."""
    given = require_signature(signature).encode()
    signer: Hook | None = None
    for hook in hooks:
        for secret in hook.secrets:
            key = secret.get_secret_value().encode()
            expected = hmac.new(key, body, hashlib.sha256).hexdigest().encode()
            if hmac.compare_digest(expected, given) and signer is None:
                signer = hook
    if signer is None:
        raise SignatureInvalidError("The signature does not verify.")
    return signer


def parse(hook: Hook, body: bytes | bytearray, content_type: str) -> Push | Ping | Ignored:
    """Read a verified body. Errors: `PayloadInvalidError`, `RepositoryForbiddenError`."""
    payload = _decode(body, content_type)
    if "zen" in payload and "hook_id" in payload:
        return Ping(hook.id)
    if not {"ref", "before", "after"} <= payload.keys():
        return Ignored(hook.id)
    repository = payload.get("repository")
    name = repository.get("full_name") if isinstance(repository, dict) else None
    if not isinstance(name, str) or not is_repository_name(name):
        raise PayloadInvalidError("repository.full_name is not owner/name.")
    if not any(fnmatchcase(name.lower(), glob.lower()) for glob in hook.repositories):
        raise RepositoryForbiddenError("This hook may not speak for that repository.")
    ref, before, after = payload["ref"], payload["before"], payload["after"]
    if not isinstance(ref, str) or not ref.startswith("refs/") or len(ref) > _MAX_REF:
        raise PayloadInvalidError("ref is not a ref name.")
    for field, value in (("before", before), ("after", after)):
        if not isinstance(value, str) or not _OBJECT_ID.fullmatch(value):
            raise PayloadInvalidError(f"{field} is not an object id.")
    digest = hashlib.sha256(body).hexdigest()
    forced = payload.get("forced") is True
    return Push(hook.id, digest, name, _HALF.sub("\ufffd", ref), before, after, forced)


def is_repository_name(text: str) -> bool:
    """True for owner/name as GitHub writes it: nothing in it can lead a URL elsewhere."""
    return _NAME.fullmatch(text) is not None


def _decode(body: bytes | bytearray, content_type: str) -> dict[str, Any]:
    try:
        if content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
            body = parse_qs(body.decode("ascii"), strict_parsing=True)["payload"][0].encode()
        payload = json.loads(body)
    except (ValueError, KeyError, RecursionError):
        raise PayloadInvalidError("The body is not JSON.") from None
    if not isinstance(payload, dict):
        raise PayloadInvalidError("The body is not a JSON object.")
    return payload
