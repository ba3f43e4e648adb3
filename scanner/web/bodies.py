"""Bodies of requests: read only when the caller may send one, up to a bound, and never shown.

A body may hold a raw token, so what is wrong with one is told by its fields' names alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qs

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from scanner.errors import (
    IntakeError,
    PayloadTooLargeError,
    RequestInvalidError,
    RequestTimeoutError,
)

SMALL = 64 * 1024  # bytes
_MOST_FIELDS = 20

M = TypeVar("M", bound="Body")


class Body(BaseModel):
    """A JSON body: of these fields and of these types, and of nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class UnsupportedMediaError(IntakeError):
    """The body is of a type that the route does not take."""

    status = 415


class BusyError(IntakeError):
    """Too much is being received at once; nothing was accepted."""

    status = 503
    code = "busy"


class Room:
    """Memory for large bodies, which all requests of a process share: `most` bytes."""

    def __init__(self, most: int = 96 << 20) -> None:
        self._left = most

    @contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """Gives what makes a request's part so many bytes large; afterwards it is free again.

        Errors, of what is given: `BusyError`. What is small is free.
        """
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if size <= SMALL:
                return
            if size - held > self._left:
                raise BusyError("Too much is being received at once; send it again.")
            self._left -= size - held
            held = size

        try:
            yield hold
        finally:
            self._left += held


def _free(_size: int) -> None:
    """Small bodies need no room."""


async def read_body(
    request: Request, limit: int, seconds: float, hold: Callable[[int], None] = _free
) -> bytes | bytearray:
    """Return the raw body, refusing it as soon as it is known to be too large, or when it has not
    come within `seconds`. `hold` is told how large it is so far, and may refuse it."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise PayloadTooLargeError(f"The body is larger than {limit} bytes.")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise PayloadTooLargeError(f"The body is larger than {limit} bytes.")
                hold(len(body) + len(chunk))
                body += chunk
    except TimeoutError:
        raise RequestTimeoutError(f"The body did not come within {seconds:g} seconds.") from None
    return body  # not a copy: it may be large


def json_body(model: type[M], limit: int = SMALL) -> Callable[[Request], Awaitable[M]]:
    """A dependency that reads a JSON body; an empty one is `{}`. FastAPI's own reading would come
    before the caller is known, and has no bound.

    Errors: `RequestInvalidError`, `UnsupportedMediaError`, and those of `read_body`.
    """

    async def read(request: Request) -> M:
        body = await read_body(request, limit, request.app.state.body_timeout)
        media = request.headers.get("content-type", "application/json").partition(";")[0]
        if media.strip().lower() != "application/json":
            raise UnsupportedMediaError("The body must be application/json.")
        try:
            return model.model_validate_json(body or b"{}")
        except ValidationError as error:
            raise RequestInvalidError(said(error.errors(include_input=False))) from None

    return read


def changes_of(body: Body) -> dict[str, Any]:
    """The fields that a body names, and no others: what a request wants to have changed."""
    return {field: getattr(body, field) for field in body.model_fields_set}


def describes(model: type[Body]) -> dict[str, Any]:
    """What the OpenAPI document says of such a body."""
    return _request_body("application/json", model.model_json_schema())


def describes_form(*fields: str) -> dict[str, Any]:
    """The same of a form."""
    schema = {
        "type": "object",
        "properties": {field: {"type": "string"} for field in fields},
        "required": list(fields[:1]),
    }
    return _request_body("application/x-www-form-urlencoded", schema)


def _request_body(media: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media: {"schema": schema}}}}


def said(errors: Sequence[Any]) -> str:
    """Say in one sentence what is wrong with a request: which field, and why."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("query", "path"))
    return f"{where}: {first['msg']}." if where else f"{first['msg']}."


def form_field(request: Request, body: bytes | bytearray, name: str) -> bytes | None:
    """Return the one value of a form's field; None: it is missing, empty, or there twice."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/x-www-form-urlencoded":
        return None
    try:
        fields = parse_qs(
            body.decode("ascii"), errors="surrogateescape", max_num_fields=_MOST_FIELDS
        )
    except ValueError:  # no ASCII, or too many fields
        return None
    values = fields.get(name, [])
    return values[0].encode("utf-8", "surrogateescape") if len(values) == 1 else None
