"""Who may ask: bearer tokens, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from scanner.errors import IntakeError

_issued = HTTPBearer(
    auto_error=False, scheme_name="IssuedToken", description="A token that this service issued."
)
# What a request brought, whoever it is.
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_issued)]


class UnauthorisedError(IntakeError):
    """The request has no token that opens this route."""

    status = 401

    def __init__(self) -> None:
        super().__init__("A valid bearer token is required.")


def authorised(given: bytes, tokens: Sequence[bytes]) -> bool:
    """True when `given` is one of the tokens; each is compared, whatever the others said."""
    return any([hmac.compare_digest(given, token) for token in tokens])  # noqa: C419 (on purpose)


class Gate(HTTPBearer):
    """A dependency that lets callers with one of the tokens pass.

    `has_basic`: the token may also come as the password of HTTP Basic, as OAuth clients send it.
    """

    def __init__(self, name: str, *tokens: str, has_basic: bool = False) -> None:
        super().__init__(
            auto_error=False,
            scheme_name=name,
            description="The token may also be the password of HTTP Basic." if has_basic else None,
        )
        self._tokens = [token.encode() for token in tokens]
        self._has_basic = has_basic

    async def __call__(self, request: Request) -> None:  # type: ignore[override]
        """Errors: `UnauthorisedError`."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        given = b""
        if scheme.lower() == "bearer":
            given = value.encode()
        elif scheme.lower() == "basic" and self._has_basic:
            given = _password(value)
        if not authorised(given, self._tokens):
            raise UnauthorisedError


def _password(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""
