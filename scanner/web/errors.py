"""Errors as answers: one shape, one sentence, and nothing of what was sent."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from scanner.errors import ConfigurationError, IntakeError, StoreUnavailableError, name_of
from scanner.web.auth import UnauthorisedError
from scanner.web.bodies import said
from scanner.web.quota import QuotaUsedUpError

log = logging.getLogger(__name__)


class Problem(BaseModel):
    """What every refusal looks like."""

    error: str


def answer_errors(app: FastAPI) -> None:
    """Let the app answer every error in this shape."""

    @app.exception_handler(IntakeError)
    async def refuse(_request: Request, error: IntakeError) -> JSONResponse:
        return _problem(str(error), error.status)

    @app.exception_handler(UnauthorisedError)
    async def unauthorised(_request: Request, error: UnauthorisedError) -> JSONResponse:
        return _problem(str(error), error.status, {"WWW-Authenticate": "Bearer"})

    @app.exception_handler(QuotaUsedUpError)
    async def used_up(_request: Request, error: QuotaUsedUpError) -> JSONResponse:
        return _problem(str(error), error.status, {"Retry-After": str(error.retry_after)})

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        return _problem(said(error.errors()), 422)

    @app.exception_handler(HTTPException)
    async def no_such_route(_request: Request, error: HTTPException) -> JSONResponse:
        return _problem(error.detail, error.status_code, dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        return _problem("The request ended too early.", 400)

    @app.exception_handler(SQLAlchemyError)
    @app.exception_handler(StoreUnavailableError)
    @app.exception_handler(ConfigurationError)  # e.g. the file is no database any more
    async def unavailable(_request: Request, error: Exception) -> JSONResponse:
        log.error("the database did not answer: %s", name_of(error))
        return _problem("The database did not answer; nothing was accepted, send it again.", 503)


def _problem(error: str, status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(Problem(error=error).model_dump(), status, headers)


def may_answer(*statuses: int) -> dict[int | str, dict[str, object]]:
    """What the OpenAPI document says of a route's refusals."""
    return {status: {"model": Problem} for status in (*statuses, 503)}
