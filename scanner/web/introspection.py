"""Is this token good, and be it good no more: RFC 7662 and RFC 7009, and the same without loss.

Callers are known and have a quota (threat 5), tokens come in bodies alone, and a look-up changes
nothing else and starts nothing.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, SecretStr

from scanner.bootstrap import Services
from scanner.db.clock import to_iso
from scanner.db.tokens import Row, to_lookup, validity_of
from scanner.model import Secret, Validity
from scanner.settings import LEAST_QUOTA
from scanner.stores.sql import works
from scanner.web.auth import Gate
from scanner.web.bodies import (
    SMALL,
    Body,
    describes,
    describes_form,
    form_field,
    json_body,
    read_body,
)
from scanner.web.errors import may_answer
from scanner.web.quota import Quota

_SERVICE = "api:service"
_MOST_TOKENS = LEAST_QUOTA
_LONGEST_TOKEN = 4_096  # characters
_MOST_BODY = _MOST_TOKENS * (_LONGEST_TOKEN + 8)
_VALIDITY = "patrol:validity"


class Introspection(BaseModel):
    """RFC 7662, 2.2. Of a token that is not active, `active` and `patrol:validity` alone."""

    active: bool = Field(description="it may be used now")
    scope: str | None = None
    client_id: str | None = Field(default=None, description="the organisation's id")
    username: str | None = Field(default=None, description="the owner's name")
    sub: str | None = Field(default=None, description="the owner's id")
    token_type: str | None = None
    exp: int | None = None
    iat: int | None = None
    nbf: int | None = None
    jti: str | None = Field(default=None, description="the token's id")
    patrol_validity: str = Field(
        alias=_VALIDITY, description="why it is not active; a token that begins later is active"
    )


class Asked(Body):
    """Tokens to look up."""

    tokens: list[Annotated[SecretStr, Field(max_length=_LONGEST_TOKEN)]] = Field(
        max_length=_MOST_TOKENS
    )


class Record(BaseModel):
    """What is known of a token."""

    token_id: str
    name: str
    pattern: str
    mask: str
    organisation_id: str
    organisation: str
    organisation_contact: str | None
    owner_id: str | None
    owner_name: str | None
    owner_email: str | None
    scopes: list[str]
    valid_from: str | None
    valid_to: str | None


class Answer(BaseModel):
    """The verdict on one token."""

    validity: Literal["active", "revoked", "expired", "owner_disabled", "never_issued"]
    token: Record | None


class Answers(BaseModel):
    """One answer a token, in the order of the question."""

    answers: list[Answer]


_Asked = Annotated[Asked, Depends(json_body(Asked, _MOST_BODY))]


def routes(services: Services, quota: Quota) -> APIRouter:
    """Build the routes; look-ups count against the caller's `quota`."""
    settings, store, tokens = services.settings, services.builtin_store, services.tokens
    gate = Gate("ServiceToken", *settings.service_bearers, *settings.admin_bearers, has_basic=True)
    counted = [Depends(gate), Depends(quota.charge)]
    router = APIRouter(tags=["introspection"], responses=may_answer(401, 413))

    async def token_of(request: Request) -> Secret | None:
        body = await read_body(request, SMALL, settings.body_timeout)
        value = form_field(request, body, "token")
        return None if value is None else Secret(value)

    @router.post(
        "/oauth/introspect",
        response_model=Introspection,
        dependencies=counted,
        responses=may_answer(429),
        openapi_extra=describes_form("token", "token_type_hint"),
    )
    async def introspect(request: Request) -> Any:
        """Tell whether a token may be used now (RFC 7662)."""
        secret = await token_of(request)
        if secret is None:
            return _INVALID
        (row,) = await run_in_threadpool(store.rows, [secret])
        return JSONResponse(_introspected(row))

    @router.post(
        "/oauth/revoke",
        response_class=Response,
        dependencies=[Depends(gate)],  # and no quota: it tells nothing, and must not be held up
        openapi_extra=describes_form("token", "token_type_hint"),
    )
    async def revoke(request: Request) -> Response:
        """Revoke a token (RFC 7009): 200, also for one that was never issued."""
        secret = await token_of(request)
        if secret is None:
            return _INVALID
        (row,) = await run_in_threadpool(store.rows, [secret])
        if row is not None:
            await asyncio.to_thread(tokens.revoke, row["id"], actor=_SERVICE)
        return Response(status_code=200)

    @router.post(
        "/api/v1/introspect",
        response_model=Answers,
        dependencies=counted,
        responses=may_answer(429),
        openapi_extra=describes(Asked),
    )
    def look_up(request: Request, body: _Asked) -> Any:
        """Look up to 500 tokens up at once, with all that is known of each."""
        # The request has paid for the first.
        quota.spend(request.state.caller, max(0, len(body.tokens) - 1))
        rows = store.rows([Secret(token.get_secret_value().encode()) for token in body.tokens])
        return {"answers": [_answer(row) for row in rows]}

    return router


_INVALID = JSONResponse(
    {
        "error": "invalid_request",
        "error_description": "The form must have one field token, and be "
        "application/x-www-form-urlencoded.",
    },
    status_code=400,
)


def _introspected(row: Row | None) -> dict[str, Any]:
    validity = Validity.NEVER_ISSUED if row is None else validity_of(row)
    if row is None or not works(row):
        return {"active": False, _VALIDITY: validity.value}
    told = {
        "active": True,
        "scope": " ".join(row["scopes"]),
        "client_id": row["organisation_id"],
        "username": row["owner_name"],
        "sub": row["owner_id"],
        "token_type": "Bearer",
        "exp": _seconds(row["valid_to"]),
        "iat": _seconds(row["created_at"]),
        "nbf": _seconds(row["valid_from"]),
        "jti": row["id"],
        _VALIDITY: validity.value,
    }
    return {name: value for name, value in told.items() if value is not None}


def _seconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds // 1_000


def _answer(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {"validity": Validity.NEVER_ISSUED.value, "token": None}
    lookup = to_lookup(row)
    token = lookup.token
    fields = Record.model_fields
    return {
        "validity": lookup.validity.value,
        "token": {
            **{field: getattr(token, field) for field in fields},
            "scopes": list(row["scopes"]),
            "valid_from": to_iso(row["valid_from"]),
            "valid_to": to_iso(row["valid_to"]),
        },
    }
