"""How the HTTP side is served: what a client may hold of it without having asked for anything."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
_NOT_WAITING = object()


class PromptProtocol(H11Protocol):
    """uvicorn's protocol, which closes a connection whose request does not begin in time: its own
    waits for ever for the first one."""

    head_seconds = HEAD_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request's head."""
        super().connection_made(transport)
        self._look_again(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._waiting.cancel()
        super().connection_lost(exc)

    def _look_again(self, last: object) -> None:
        self._waiting = self.loop.call_later(self.head_seconds, self._look, last)

    def _look(self, last: object) -> None:
        if self.transport.is_closing():
            return
        if self.conn.their_state is not h11.IDLE:  # a request is under way: others bound its body
            self._look_again(_NOT_WAITING)
        elif self.cycle is last:  # no request has begun since the last look
            self.transport.close()
        else:
            self._look_again(self.cycle)


def server_config(app: ASGIApp, **options: Any) -> uvicorn.Config:
    """How uvicorn serves `app`; `options` are `uvicorn.Config`'s.

    So many connections are too many that would leave no descriptors for the database. Its own
    logging would show paths and queries; web/access.py tells of each request instead.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    values = {"log_config": None, "access_log": False, "limit_concurrency": descriptors // 2}
    return uvicorn.Config(app, http=PromptProtocol, **{**values, **options})
