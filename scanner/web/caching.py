"""What the API answers is kept by nobody on the way: it may be a token, or say who has one."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PREFIXES = ("/api/", "/oauth/")


class NoStore:
    """ASGI middleware: `Cache-Control: no-store` on every answer of the API, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and mark the answer."""
        if scope["type"] != "http" or not scope["path"].startswith(_PREFIXES):
            await self._app(scope, receive, send)
            return

        async def marking(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"cache-control", b"no-store"),
                    (b"pragma", b"no-cache"),
                ]
            await send(message)

        await self._app(scope, receive, marking)
