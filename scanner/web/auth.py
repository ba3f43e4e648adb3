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
    return bool(_places(given, tokens))


def _places(given: bytes, tokens: Sequence[bytes]) -> list[int]:
    same = [hmac.compare_digest(given, token) for token in tokens]
    return [place for place, is_same in enumerate(same) if is_same]


class Gate(HTTPBearer):
    """A dependency that lets callers with one of the tokens pass.

    `has_basic`: the token may also come as the password of HTTP Basic, as OAuth clients send it.
    Leaves a name for the caller in the request's state: which of the tokens it is.
    """

    def __init__(self, name: str, *tokens: str, has_basic: bool = False) -> None:
        super().__init__(
            auto_error=False,
            scheme_name=name,
            description="The token may also be the password of HTTP Basic." if has_basic else None,
        )
        self._name = name
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
        places = _places(given, self._tokens)
        if not places:
            raise UnauthorisedError
        request.state.caller = f"{self._name}:{places[0]}"


def _password(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""
