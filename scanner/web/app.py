"""The HTTP side: hooks in, a read-only API out."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from scanner import __version__
from scanner.bootstrap import Services
from scanner.correlation import correlate
from scanner.db import audit, incidents
from scanner.db.engine import reader
from scanner.errors import (
    ConfigurationError,
    IntakeError,
    PayloadTooLargeError,
    RequestTimeoutError,
    StoreUnavailableError,
    name_of,
)
from scanner.model import Secret
from scanner.ports import Waker
from scanner.settings import Hook
from scanner.sources import github_push
from scanner.web import health
from scanner.web.access import AccessLog
from scanner.worker import SCAN

log = logging.getLogger(__name__)

_SMALL_BODY = 64 * 1024  # bytes: signed and parsed within a millisecond
_bearer = HTTPBearer(auto_error=False)
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
_UNAUTHORISED = JSONResponse(
    {"error": "A valid bearer token is required."},
    status_code=401,
    headers={"WWW-Authenticate": "Bearer"},
)


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Return the raw body, refusing it as soon as it is known to be too large, or when it has not
    come within `seconds`."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise PayloadTooLargeError(f"The body is larger than {limit} bytes.")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise PayloadTooLargeError(f"The body is larger than {limit} bytes.")
    except TimeoutError:
        raise RequestTimeoutError(f"The body did not come within {seconds:g} seconds.") from None
    return bytes(body)


def _read_push(
    hooks: Sequence[Hook], body: bytes, headers: Headers
) -> github_push.Push | github_push.Ping | github_push.Ignored:
    hook = github_push.verify(hooks, body, headers.get("x-hub-signature-256"))
    return github_push.parse(hook, body, headers.get("content-type", ""))


def create_app(services: Services, waker: Waker) -> FastAPI:
    """Build the ASGI app."""
    app = FastAPI(title="Patrol", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(AccessLog)
    hooks, intake = services.settings.all_hooks, services.intake
    database, store = services.database, services.builtin_store
    body_timeout = services.settings.body_timeout
    api_token = services.settings.api_bearer.encode()

    _answer_errors(app)

    @app.post("/webhooks/github", status_code=202)
    async def github(request: Request) -> JSONResponse:
        """Take a push: 202 once it is a durable row, 200 for what needs no work."""
        body = await read_body(request, github_push.MAX_BODY, body_timeout)
        if len(body) <= _SMALL_BODY:
            event = _read_push(hooks, body, request.headers)
        else:  # a signature over megabytes would keep everybody else waiting
            event = await run_in_threadpool(_read_push, hooks, body, request.headers)
        if isinstance(event, github_push.Ping):
            return JSONResponse({"pong": True})
        if isinstance(event, github_push.Ignored):
            return JSONResponse({"ignored": "not a push"})
        delivery = request.headers.get("x-github-delivery")
        scan_id, is_new = await run_in_threadpool(intake.accept, event, delivery)
        correlate(scan_id)
        log.info("push accepted", extra={"duplicate": not is_new})
        await run_in_threadpool(waker.wake, SCAN)
        return JSONResponse({"scan": scan_id, "duplicate": not is_new}, status_code=202)

    def authorised(credentials: HTTPAuthorizationCredentials | None) -> bool:
        given = credentials.credentials.encode() if credentials else b""
        return hmac.compare_digest(given, api_token)

    @app.get("/api/v1/leaks")
    def leaks(credentials: _Credentials) -> Any:
        """List the newest incidents."""
        if not authorised(credentials):
            return _UNAUTHORISED
        with reader(database).connect() as connection:
            return {"leaks": incidents.list_incidents(connection)}

    @app.get("/api/v1/leaks/{incident_id}")
    def leak(incident_id: str, credentials: _Credentials) -> Any:
        """Show one incident with its places and its audit trail."""
        if not authorised(credentials):
            return _UNAUTHORISED
        with reader(database).connect() as connection:
            found = incidents.list_incidents(connection, incident_id)
            if not found:
                return JSONResponse({"error": "There is no such leak."}, status_code=404)
            places, total = incidents.list_sightings(connection, incident_id)
            events = audit.list_events(connection, incident_id=incident_id)
        return {**found[0], "places": places, "places_total": total, "audit": events}

    @app.get("/api/v1/audit")
    def audit_trail(credentials: _Credentials) -> Any:
        """List the newest audit events."""
        if not authorised(credentials):
            return _UNAUTHORISED
        with reader(database).connect() as connection:
            return {"events": audit.list_events(connection)}

    @app.get("/api/v1/whoami")
    def whoami(credentials: _Credentials) -> Any:
        """Answer a bearer of an issued token: 200 while it works, 401 once it does not."""
        record = (
            store.authenticate(Secret(credentials.credentials.encode())) if credentials else None
        )
        if record is None:
            return _UNAUTHORISED
        return {"token": record.name, "owner": record.owner_name, "scopes": list(record.scopes)}

    app.include_router(health.routes(services))

    @app.get("/")
    def index() -> dict[str, str]:
        """Say what this is and where to go."""
        return {
            "service": "Patrol",
            "version": __version__,
            "openapi": "/openapi.json",
            "leaks": "/api/v1/leaks",
            "health": "/healthz",
        }

    return app


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(IntakeError)
    async def refuse(_request: Request, error: IntakeError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=error.status)

    @app.exception_handler(HTTPException)
    async def no_such_route(_request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        return JSONResponse({"error": "The request ended too early."}, status_code=400)

    @app.exception_handler(SQLAlchemyError)
    @app.exception_handler(StoreUnavailableError)
    @app.exception_handler(ConfigurationError)  # e.g. the file is no database any more
    async def unavailable(_request: Request, error: Exception) -> JSONResponse:
        log.error("the database did not answer: %s", name_of(error))
        return JSONResponse(
            {"error": "The database did not answer; nothing was accepted, send it again."},
            status_code=503,
        )
