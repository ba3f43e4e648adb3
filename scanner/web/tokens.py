"""The life of tokens over HTTP: `/api/v1/tokens`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AwareDatetime, BaseModel, Field

from scanner.bootstrap import Services
from scanner.model import Validity
from scanner.stores.lifecycle import DEFAULT_DAYS, LONGEST_OVERLAP
from scanner.stores.pages import MOST_ROWS
from scanner.web.auth import Gate
from scanner.web.bodies import Body, changes_of, describes, json_body
from scanner.web.errors import may_answer
from scanner.web.quota import Quota

_ADMIN, _SERVICE = "api:admin", "api:service"
_MOST_DAYS = 36_500


class Token(BaseModel):
    """A token as it is told; the token itself is told once, when it is made."""

    id: str
    name: str
    organisation: str
    organisation_id: str
    owner: str | None
    owner_id: str | None
    pattern: str
    mask: str
    scopes: list[str]
    validity: Literal["active", "revoked", "expired", "owner_disabled"]
    valid_from: str | None
    valid_to: str | None
    created_at: str
    revoked_at: str | None
    revoked_by: str | None = Field(description="an incident's id, or who did it by hand")
    predecessor_id: str | None = Field(description="the token it was rotated from")
    external_id: str | None


class NewToken(Token):
    """A token that was just made."""

    token: str = Field(description="the token itself, which is never told again")


class RevokedToken(Token):
    """A token that is revoked."""

    ours: bool = Field(description="the cause of this request is what revoked it, now or before")


class TokenPage(BaseModel):
    """Tokens, the newest first."""

    tokens: list[Token]
    cursor: str | None = Field(description="leads to the next page; null: there is none")


class Create(Body):
    """A token to make."""

    organisation: str = Field(description="its id or name")
    owner: str = Field(description="an id, or a name in that organisation")
    name: str
    pattern: str
    scopes: list[str] = Field(default=[])
    valid_from: AwareDatetime | None = Field(default=None, description="null: now")
    valid_to: AwareDatetime | None = Field(
        default=None, description=f"null: never ends; unless given, {DEFAULT_DAYS} days"
    )
    external_id: str | None = Field(default=None, description="what your own books call it")


class Update(Body):
    """What to change."""

    name: str = ""
    scopes: list[str] = Field(default=[])
    valid_to: AwareDatetime | None = Field(default=None, description="null: never ends")


class Rotate(Body):
    """How to replace a token."""

    overlap_seconds: int = Field(
        default=0, ge=0, le=LONGEST_OVERLAP, description="how long the old one still works"
    )
    days: int | None = Field(
        default=None, ge=1, le=_MOST_DAYS, description="null: as long as the old one was meant to"
    )


class Revoke(Body):
    """Why a token is revoked."""

    cause: str | None = Field(default=None, description="an incident's id; null: who asks")


_TokenId = Annotated[str, Path(description="a token's id")]
_Create = Annotated[Create, Depends(json_body(Create))]
_Update = Annotated[Update, Depends(json_body(Update))]
_Rotate = Annotated[Rotate, Depends(json_body(Rotate))]
_Revoke = Annotated[Revoke, Depends(json_body(Revoke))]
_Limit = Annotated[int, Query(ge=1, le=MOST_ROWS)]
_Validity = Literal["active", "revoked", "expired", "owner_disabled"]


def routes(services: Services, quota: Quota) -> APIRouter:
    """Build the routes; looking at one token counts against the caller's `quota`."""
    tokens, mint, settings = services.tokens, services.mint, services.settings
    refusals = may_answer(401, 404, 409, 413, 415, 422)
    every = APIRouter(tags=["tokens"], responses=refusals)
    admin = Gate("AdminToken", *settings.admin_bearers)
    router = APIRouter(prefix="/api/v1/tokens", dependencies=[Depends(admin)])
    service = Gate("ServiceToken", *settings.service_bearers, *settings.admin_bearers)

    @router.get("", response_model=TokenPage)
    def list_tokens(
        organisation: str | None = None,
        owner: str | None = None,
        validity: _Validity | None = None,
        pattern: str | None = None,
        limit: _Limit = 50,
        cursor: str | None = None,
    ) -> Any:
        """List tokens. `owner` is an id, or a name with `organisation`."""
        page = tokens.search(
            organisation=organisation,
            owner=owner,
            validity=None if validity is None else Validity(validity),
            pattern=pattern,
            limit=limit,
            cursor=cursor,
        )
        return {"tokens": page.rows, "cursor": page.cursor}

    @router.post("", response_model=NewToken, status_code=201, openapi_extra=describes(Create))
    def create(body: _Create) -> Any:
        """Make a token. The answer is the only place that ever shows it."""
        minted = mint.make(body.pattern)
        lasts = {"valid_to": body.valid_to} if "valid_to" in body.model_fields_set else {}
        made = tokens.create(
            minted.secret,
            organisation=body.organisation,
            owner=body.owner,
            name=body.name,
            pattern=minted.pattern,
            mask=minted.mask,
            scopes=body.scopes,
            valid_from=body.valid_from,
            **lasts,
            days=None if lasts else DEFAULT_DAYS,
            external_id=body.external_id,
            actor=_ADMIN,
        )
        return {**made, "token": minted.secret.reveal().decode()}

    @router.patch("/{token_id}", response_model=Token, openapi_extra=describes(Update))
    def update(token_id: _TokenId, body: _Update) -> Any:
        """Change a token's name, scopes or end. Prolonging one that had expired opens its leak."""
        return tokens.update(token_id, changes_of(body), actor=_ADMIN)

    @router.post(
        "/{token_id}/rotate",
        response_model=NewToken,
        status_code=201,
        openapi_extra=describes(Rotate),
    )
    def rotate(token_id: _TokenId, body: _Rotate) -> Any:
        """Make the successor of a token, with its owner, name and scopes; the old one ends."""
        minted = mint.make(tokens.get(token_id)["pattern"])
        made = tokens.rotate(
            token_id,
            minted.secret,
            mask=minted.mask,
            overlap=body.overlap_seconds,
            days=body.days,
            actor=_ADMIN,
        )
        return {**made, "token": minted.secret.reveal().decode()}

    @router.post("/{token_id}/expire", response_model=Token)
    def expire(token_id: _TokenId) -> Any:
        """Let a token end now. It can be prolonged again."""
        return tokens.expire(token_id, actor=_ADMIN)

    @router.delete("/{token_id}", response_model=RevokedToken)
    def delete(token_id: _TokenId) -> Any:
        """Revoke a token, for good. Its record stays."""
        row, ours = tokens.revoke(token_id, actor=_ADMIN)
        return {**row, "ours": ours}

    # Who may revoke a token may see what became of it.
    @every.get(
        "/api/v1/tokens/{token_id}",
        response_model=Token,
        dependencies=[Depends(service), Depends(quota.charge)],
        responses=may_answer(429),
    )
    def show(token_id: _TokenId) -> Any:
        """Show a token."""
        return tokens.get(token_id)

    @every.post(
        "/api/v1/tokens/{token_id}/revoke",
        response_model=RevokedToken,
        dependencies=[Depends(service)],
        openapi_extra=describes(Revoke),
    )
    def revoke(token_id: _TokenId, body: _Revoke) -> Any:
        """Revoke a token with its cause, for good. For the same cause it is `ours` again and again,
        for another one it is not."""
        row, ours = tokens.revoke(token_id, cause=body.cause, actor=_SERVICE)
        return {**row, "ours": ours}

    every.include_router(router)
    return every
