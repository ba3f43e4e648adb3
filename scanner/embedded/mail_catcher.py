"""A mail server for trying things out: it keeps every message and shows it on a page.

Loopback only. Messages are .eml files in the data directory, readable by their owner only.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import html
import secrets
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import uvicorn
from aiosmtpd.smtp import SMTP
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from scanner.embedded.ports import check_port_free

_MOST_BYTES = 5 << 20
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 860px; padding: 24px;
  color: #1c2430; background: #f3f5f8; }
a { color: #0b57b8; } li { margin: 0 0 12px; } small { color: #55606f; }
iframe { width: 100%; height: 70vh; border: 1px solid #c9d1db; border-radius: 8px; }
pre { white-space: pre-wrap; background: #fff; padding: 16px; border-radius: 8px; }
@media (prefers-color-scheme: dark) { body { color: #e6eaf0; background: #10141a; }
  a { color: #8ab8ff; } small { color: #a3afbf; } pre { background: #1a2029; } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; frame-ancestors 'self'"


class MailStore:
    """Messages in a directory, in the order of their arrival."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def add(self, content: bytes) -> str:
        """Keep a message; returns its id."""
        mail_id = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        temporary = self._directory / f".{mail_id}"
        temporary.touch(mode=0o600)
        temporary.write_bytes(content)
        temporary.replace(self._directory / f"{mail_id}.eml")
        return mail_id

    def ids(self) -> list[str]:
        """Return the ids, newest first."""
        return sorted((path.stem for path in self._directory.glob("[!.]*.eml")), reverse=True)

    def read(self, mail_id: str) -> EmailMessage | None:
        """Return a message; None when there is none of that id."""
        if mail_id not in self.ids():
            return None
        content = (self._directory / f"{mail_id}.eml").read_bytes()
        message = email.message_from_bytes(content, policy=email.policy.default)
        return message if isinstance(message, EmailMessage) else None


class _Sink:
    def __init__(self, store: MailStore) -> None:
        self._store = store

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        await asyncio.to_thread(self._store.add, envelope.content)
        return "250 kept"


def _page(title: str, body: str, *, refresh: bool = False) -> HTMLResponse:
    again = '<meta http-equiv="refresh" content="3">' if refresh else ""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{again}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>",
        headers={"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"},
    )


def build_app(store: MailStore) -> Starlette:
    """The page: a list, one message, and its HTML part for the frame."""

    def index(_request: Request) -> Response:
        rows = []
        for mail_id in store.ids()[:200]:
            message = store.read(mail_id)
            if message is not None:
                rows.append(
                    f'<li><a href="/mail/{mail_id}">{html.escape(str(message["Subject"]))}</a>'
                    f"<br><small>to {html.escape(str(message['To']))}, "
                    f"{html.escape(str(message['Date']))}</small></li>"
                )
        listing = f"<ul>{''.join(rows)}</ul>" if rows else "<p>No mail yet.</p>"
        return _page("Caught mail", f"<h1>Caught mail</h1>{listing}", refresh=True)

    def show(request: Request) -> Response:
        mail_id = request.path_params["mail_id"]
        message = store.read(mail_id)
        if message is None:
            return _page("No such mail", "<h1>No such mail</h1>")
        text = message.get_body(("plain",))
        subject = html.escape(str(message["Subject"]))
        return _page(
            str(message["Subject"]),
            f'<p><a href="/">All mail</a></p><h1>{subject}</h1>'
            f"<p><small>from {html.escape(str(message['From']))} "
            f"to {html.escape(str(message['To']))}</small></p>"
            f'<iframe sandbox title="The mail" src="/mail/{mail_id}/html"></iframe>'
            f"<h2>As text</h2><pre>{html.escape(text.get_content() if text else '')}</pre>",
        )

    def part(request: Request) -> Response:
        message = store.read(request.path_params["mail_id"])
        body = message.get_body(("html",)) if message is not None else None
        policy = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
        return HTMLResponse(
            body.get_content() if body else "", headers={"Content-Security-Policy": policy}
        )

    return Starlette(
        routes=[
            Route("/", index),
            Route("/mail/{mail_id}", show),
            Route("/mail/{mail_id}/html", part),
        ]
    )


def serve(directory: Path, smtp_port: int, http_port: int) -> None:
    """Run until SIGTERM or SIGINT. Errors: `ConfigurationError` for a taken port."""
    check_port_free("127.0.0.1", smtp_port, "PATROL_SMTP_PORT")
    check_port_free("127.0.0.1", http_port, "PATROL_MAIL_PORT")
    asyncio.run(_serve(MailStore(directory), smtp_port, http_port))


async def _serve(store: MailStore, smtp_port: int, http_port: int) -> None:
    loop = asyncio.get_running_loop()
    sink = _Sink(store)
    server = await loop.create_server(
        lambda: SMTP(sink, data_size_limit=_MOST_BYTES, hostname="localhost", loop=loop),
        "127.0.0.1",
        smtp_port,
    )
    async with server:
        config = uvicorn.Config(
            build_app(store), host="127.0.0.1", port=http_port, log_level="warning"
        )
        await uvicorn.Server(config).serve()
