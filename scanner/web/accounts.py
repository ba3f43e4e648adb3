"""Whose tokens they are, over HTTP: `/api/v1/owners` and `/api/v1/organisations`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from scanner.bootstrap import Services
from scanner.stores.pages import MOST_ROWS
from scanner.web.auth import Gate
from scanner.web.bodies import Body, changes_of, describes, json_body
from scanner.web.errors import may_answer

_ADMIN = "api:admin"
_Kind = Literal["person", "bot"]


class Organisation(BaseModel):
    """An organisation; its policy answers the leaks of its tokens."""

    id: str
    name: str
    contact: str | None
    created_at: str
    disabled: bool
    disabled_at: str | None


class OrganisationPage(BaseModel):
    """Organisations by name."""

    organisations: list[Organisation]
    cursor: str | None


class NewOrganisation(Body):
    """An organisation to make."""

    name: str
    contact: str | None = Field(default=None, description="told what no owner can be told")


class ChangedOrganisation(Body):
    """What to change."""

    name: str = ""
    contact: str | None = None


class Owner(BaseModel):
    """Who has tokens: a person, or a bot."""

    id: str
    name: str
    kind: _Kind
    email: str | None
    organisation: str
    organisation_id: str
    disabled: bool
    disabled_at: str | None


class OwnerPage(BaseModel):
    """Owners by name, organisation after organisation."""

    owners: list[Owner]
    cursor: str | None


class NewOwner(Body):
    """An owner to make."""

    organisation: str = Field(description="its id or name")
    name: str
    email: str | None = None
    kind: _Kind = "person"


class ChangedOwner(Body):
    """What to change."""

    name: str = ""
    email: str | None = None
    kind: _Kind = "person"


_OrganisationId = Annotated[str, Path(description="an organisation's id or name")]
_OwnerId = Annotated[str, Path(description="an owner's id")]
_NewOrganisation = Annotated[NewOrganisation, Depends(json_body(NewOrganisation))]
_ChangedOrganisation = Annotated[ChangedOrganisation, Depends(json_body(ChangedOrganisation))]
_NewOwner = Annotated[NewOwner, Depends(json_body(NewOwner))]
_ChangedOwner = Annotated[ChangedOwner, Depends(json_body(ChangedOwner))]
_Limit = Annotated[int, Query(ge=1, le=MOST_ROWS)]


def routes(services: Services) -> APIRouter:
    """Build the routes."""
    router = APIRouter(
        prefix="/api/v1",
        tags=["accounts"],
        dependencies=[Depends(Gate("AdminToken", *services.settings.admin_bearers))],
        responses=may_answer(401, 404, 409, 413, 415, 422),
    )
    accounts = services.accounts

    @router.get("/organisations", response_model=OrganisationPage)
    def list_organisations(limit: _Limit = 50, cursor: str | None = None) -> Any:
        """List organisations."""
        page = accounts.organisations(limit=limit, cursor=cursor)
        return {"organisations": page.rows, "cursor": page.cursor}

    @router.post(
        "/organisations",
        response_model=Organisation,
        status_code=201,
        openapi_extra=describes(NewOrganisation),
    )
    def create_organisation(body: _NewOrganisation) -> Any:
        """Make an organisation."""
        return accounts.create_organisation(name=body.name, contact=body.contact, actor=_ADMIN)

    @router.get("/organisations/{organisation}", response_model=Organisation)
    def show_organisation(organisation: _OrganisationId) -> Any:
        """Show an organisation."""
        return accounts.organisation(organisation)

    @router.patch(
        "/organisations/{organisation}",
        response_model=Organisation,
        openapi_extra=describes(ChangedOrganisation),
    )
    def update_organisation(organisation: _OrganisationId, body: _ChangedOrganisation) -> Any:
        """Change an organisation's name or contact."""
        return accounts.update_organisation(organisation, changes_of(body), actor=_ADMIN)

    @router.post("/organisations/{organisation}/disable", response_model=Organisation)
    def disable_organisation(organisation: _OrganisationId) -> Any:
        """Stop all tokens of an organisation; a leaked one is revoked all the same."""
        return accounts.enable_organisation(organisation, enabled=False, actor=_ADMIN)

    @router.post("/organisations/{organisation}/enable", response_model=Organisation)
    def enable_organisation(organisation: _OrganisationId) -> Any:
        """Let the tokens of an organisation work again."""
        return accounts.enable_organisation(organisation, enabled=True, actor=_ADMIN)

    @router.get("/owners", response_model=OwnerPage)
    def list_owners(
        organisation: str | None = None, limit: _Limit = 50, cursor: str | None = None
    ) -> Any:
        """List owners, of one organisation or of all."""
        page = accounts.owners(organisation=organisation, limit=limit, cursor=cursor)
        return {"owners": page.rows, "cursor": page.cursor}

    @router.post(
        "/owners", response_model=Owner, status_code=201, openapi_extra=describes(NewOwner)
    )
    def create_owner(body: _NewOwner) -> Any:
        """Make an owner. A bot needs an address, or an organisation with a contact."""
        return accounts.create_owner(**body.model_dump(), actor=_ADMIN)

    @router.get("/owners/{owner_id}", response_model=Owner)
    def show_owner(owner_id: _OwnerId) -> Any:
        """Show an owner."""
        return accounts.owner(owner_id)

    @router.patch("/owners/{owner_id}", response_model=Owner, openapi_extra=describes(ChangedOwner))
    def update_owner(owner_id: _OwnerId, body: _ChangedOwner) -> Any:
        """Change an owner's name, address or kind."""
        return accounts.update_owner(owner_id, changes_of(body), actor=_ADMIN)

    @router.post("/owners/{owner_id}/disable", response_model=Owner)
    def disable_owner(owner_id: _OwnerId) -> Any:
        """Stop all tokens of an owner; a leaked one is revoked all the same."""
        return accounts.enable_owner(owner_id, enabled=False, actor=_ADMIN)

    @router.post("/owners/{owner_id}/enable", response_model=Owner)
    def enable_owner(owner_id: _OwnerId) -> Any:
        """Let the tokens of an owner work again."""
        return accounts.enable_owner(owner_id, enabled=True, actor=_ADMIN)

    return router
