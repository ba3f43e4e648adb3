"""Webhooks: a push is a durable row before it is answered; what is refused is counted."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from scanner.bootstrap import Services
from scanner.correlation import correlate
from scanner.errors import IntakeError
from scanner.metrics import PUSHES
from scanner.ports import Waker
from scanner.settings import Hook
from scanner.sources import github_push
from scanner.web.bodies import SMALL, Room, read_body
from scanner.worker import SCAN

log = logging.getLogger(__name__)


def _read_push(
    hooks: Sequence[Hook], body: bytes | bytearray, headers: Headers
) -> github_push.Push | github_push.Ping | github_push.Ignored:
    hook = github_push.verify(hooks, body, headers.get("x-hub-signature-256"))
    return github_push.parse(hook, body, headers.get("content-type", ""))


@contextmanager
def _refusals_counted() -> Iterator[None]:
    try:
        yield
    except IntakeError as error:
        PUSHES.add(outcome=error.code)
        raise
    except ClientDisconnect:
        PUSHES.add(outcome="disconnected")
        raise
    except Exception:
        PUSHES.add(outcome="unavailable")
        raise


def routes(services: Services, waker: Waker) -> APIRouter:
    """Build the routes that others report pushes to."""
    router = APIRouter(tags=["webhooks"])
    hooks, intake = services.settings.all_hooks, services.intake
    body_timeout, room = services.settings.body_timeout, Room()

    @router.post("/webhooks/github", status_code=202)
    async def github(request: Request) -> JSONResponse:
        """Take a push: 202 once it is a durable row, 200 for what needs no work."""
        with _refusals_counted(), room.held() as hold:
            github_push.require_signature(request.headers.get("x-hub-signature-256"))
            body = await read_body(request, github_push.MAX_BODY, body_timeout, hold)
            if len(body) <= SMALL:
                event = _read_push(hooks, body, request.headers)
            else:  # a signature over megabytes would keep everybody else waiting
                event = await run_in_threadpool(_read_push, hooks, body, request.headers)
            if isinstance(event, github_push.Ping):
                PUSHES.add(outcome="ignored")
                return JSONResponse({"pong": True})
            if isinstance(event, github_push.Ignored):
                PUSHES.add(outcome="ignored")
                return JSONResponse({"ignored": "not a push"})
            delivery = request.headers.get("x-github-delivery")
            scan_id, is_new = await run_in_threadpool(intake.accept, event, delivery)
            correlate(scan_id)
            PUSHES.add(outcome="accepted" if is_new else "duplicate")
            log.info("push accepted", extra={"duplicate": not is_new})
            await run_in_threadpool(waker.wake, SCAN)
            return JSONResponse({"scan": scan_id, "duplicate": not is_new}, status_code=202)

    return router
