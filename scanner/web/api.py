"""What was found and done, for programs that only read."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from scanner.bootstrap import Services
from scanner.db import audit, incidents
from scanner.db.engine import reader
from scanner.errors import NotFoundError
from scanner.model import Secret
from scanner.web.auth import Credentials, Gate, UnauthorisedError
from scanner.web.errors import may_answer


def routes(services: Services) -> APIRouter:
    """Build the read-only routes."""
    router = APIRouter(prefix="/api/v1", tags=["reading"])
    database, store = services.database, services.builtin_store
    gate = [Depends(Gate("ApiToken", *services.settings.api_bearers))]

    @router.get("/leaks", dependencies=gate, responses=may_answer(401))
    def leaks() -> Any:
        """List the newest incidents."""
        with reader(database).connect() as connection:
            return {"leaks": incidents.list_incidents(connection)}

    @router.get("/leaks/{incident_id}", dependencies=gate, responses=may_answer(401, 404))
    def leak(incident_id: str) -> Any:
        """Show one incident with its places and its audit trail."""
        with reader(database).connect() as connection:
            found = incidents.list_incidents(connection, incident_id)
            if not found:
                raise NotFoundError("There is no such leak.")
            places, total = incidents.list_sightings(connection, incident_id)
            events = audit.list_events(connection, incident_id=incident_id)
        return {**found[0], "places": places, "places_total": total, "audit": events}

    @router.get("/audit", dependencies=gate, responses=may_answer(401))
    def audit_trail() -> Any:
        """List the newest audit events."""
        with reader(database).connect() as connection:
            return {"events": audit.list_events(connection)}

    @router.get("/whoami", responses=may_answer(401))
    def whoami(credentials: Credentials) -> Any:
        """Answer a bearer of an issued token: 200 while it works, 401 once it does not."""
        record = (
            store.authenticate(Secret(credentials.credentials.encode())) if credentials else None
        )
        if record is None:
            raise UnauthorisedError
        return {"token": record.name, "owner": record.owner_name, "scopes": list(record.scopes)}

    return router
