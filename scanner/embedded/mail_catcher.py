"""The embedded mailbox: an SMTP sink that keeps every mail as a file, and a page to read them on.

It never sends anything on. Both servers share one process and one event loop and listen on
loopback only, because whoever reaches them reads everybody's mail.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.errors import MessageError
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default as modern
from pathlib import Path

import uvicorn
from aiosmtpd.smtp import SMTP, Envelope, Session
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from scanner.errors import ConfigurationError

HOST = "127.0.0.1"
LARGEST_MAIL = 10 << 20  # bytes; a larger one is refused with 552
_HEADERS = 64 << 10  # bytes of a mail that the list reads
_LISTED = 200  # mails on the page; the files hold all of them

_ID = re.compile(r"\d{20}-[0-9a-f]{8}")
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "mail_pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# A mail's own HTML: no scripts, no requests, an origin of its own; its links open in a new tab.
_MAIL_HEADERS = {
    **_PAGE_HEADERS,
    "Content-Security-Policy": "sandbox allow-popups allow-popups-to-escape-sandbox; "
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'",
}


@dataclass(frozen=True, slots=True)
class MailSummary:
    """One line of the mailbox. `id` orders by arrival; header values are decoded."""

    id: str
    received_at: datetime
    sender: str
    to: str
    subject: str
    message_id: str
    size: int  # bytes


class MailStore:
    """Mails as .eml files in one directory, which only its owner may read.

    Raises `ConfigurationError` when the directory cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._last = 0
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"The mail directory {directory} cannot be made ({error.strerror})."
            ) from None

    def add(self, raw: bytes) -> str:
        """Keep one mail durably and return its id. It appears whole or not at all."""
        with self._lock:  # two mails within one tick of the clock keep their order
            self._last = max(self._last + 1, time.time_ns())
            mail_id = f"{self._last:020d}-{secrets.token_hex(4)}"
        temporary = self.directory / f".{mail_id}.writing"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._path(mail_id))
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return mail_id

    def list(self, limit: int | None = None) -> Sequence[MailSummary]:
        """Return what is here, newest first, at most `limit`."""
        summaries = []
        for mail_id in self.ids()[:limit]:
            with self._path(mail_id).open("rb") as file:
                head = file.read(_HEADERS)
                size = os.fstat(file.fileno()).st_size
            message = BytesParser(EmailMessage, policy=modern).parsebytes(head, headersonly=True)
            summaries.append(_summarise(mail_id, message, size))
        return summaries

    def read(self, mail_id: str) -> EmailMessage | None:
        """Return one mail, parsed; None for an id that is not here."""
        raw = self.source(mail_id)
        return None if raw is None else BytesParser(EmailMessage, policy=modern).parsebytes(raw)

    def source(self, mail_id: str) -> bytes | None:
        """Return one mail's bytes as they came; None for an id that is not here."""
        if not _ID.fullmatch(mail_id):
            return None
        try:
            return self._path(mail_id).read_bytes()
        except FileNotFoundError:
            return None

    def ids(self) -> Sequence[str]:
        """Return the ids of all mails, newest first."""
        names = (path.stem for path in self.directory.glob("*.eml"))
        return sorted((name for name in names if _ID.fullmatch(name)), reverse=True)

    def _path(self, mail_id: str) -> Path:
        return self.directory / f"{mail_id}.eml"


def build_app(store: MailStore, title: str = "Patrol mail") -> Starlette:
    """Return the mailbox as a web application: a list that reloads itself, and one page a mail."""

    def show_list(_request: Request) -> Response:
        return _page("list.html", title=title, mails=store.list(_LISTED), count=len(store.ids()))

    def show_mail(request: Request) -> Response:
        mail_id, raw, message = _find(store, request)
        return _page(
            "mail.html",
            title=title,
            summary=_summarise(mail_id, message, len(raw)),
            text=_part(message, "plain"),
            has_html=bool(_part(message, "html")),
        )

    def show_html(request: Request) -> Response:
        # Links leave the frame, which may show nothing but this mail.
        html = re.sub(
            r"<head(?:\s[^>]*)?>",
            lambda head: f'{head[0]}<base target="_blank">',
            _part(_find(store, request)[2], "html"),
            count=1,
            flags=re.IGNORECASE,
        )
        return HTMLResponse(html, headers=_MAIL_HEADERS)

    def show_source(request: Request) -> Response:
        raw = _find(store, request)[1]
        return PlainTextResponse(raw.decode("utf-8", "replace"), headers=_MAIL_HEADERS)

    def show_style(_request: Request) -> Response:
        css = (Path(__file__).parent / "mail_pages" / "style.css").read_bytes()
        return Response(css, media_type="text/css", headers={"Cache-Control": "no-cache"})

    return Starlette(
        routes=[
            Route("/", show_list),
            Route("/style.css", show_style),
            Route("/mail/{id}", show_mail),
            Route("/mail/{id}/html", show_html),
            Route("/mail/{id}/source", show_source),
        ],
        # A stranger's site whose name resolves to 127.0.0.1 must not read the mails.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
    )


def serve(directory: Path, smtp_port: int, http_port: int, host: str = HOST) -> None:
    """Take mail on `smtp_port` and show it on `http_port`, both on loopback unless `host` says
    otherwise, until SIGTERM or SIGINT; call it from a process's main thread. Prints nothing.

    Raises `ConfigurationError` that names the port when one is taken.
    """
    store = MailStore(directory)
    with (
        _listen(host, smtp_port, "smtp_port") as smtp,
        _listen(host, http_port, "mail_port") as http,
    ):
        asyncio.run(run(store, smtp, http, signals=(signal.SIGTERM, signal.SIGINT)))


async def run(
    store: MailStore,
    smtp: socket.socket,
    http: socket.socket,
    *,
    signals: tuple[signal.Signals, ...] = (),
    stop: asyncio.Event | None = None,
) -> None:
    """Serve both on listening sockets until `stop` is set or one of `signals` arrives."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    web = _Web(
        uvicorn.Config(
            build_app(store),
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )
    mail = await loop.create_server(lambda: _protocol(store, loop), sock=smtp)
    try:
        serving = asyncio.create_task(web.serve(sockets=[http]))
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        web.should_exit = True
        await serving
    finally:
        mail.close()
        for number in signals:
            loop.remove_signal_handler(number)


class _Web(uvicorn.Server):
    """uvicorn without its signal handling, which would kill the process a second time."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Sink:
    """aiosmtpd's handler: keeps what arrives, for whomever it is."""

    def __init__(self, store: MailStore) -> None:
        self._store = store

    async def handle_DATA(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        content = envelope.content
        raw = content if isinstance(content, bytes) else (content or "").encode()
        try:
            await asyncio.to_thread(self._store.add, raw)
        except OSError:
            return "452 4.3.1 The mail could not be stored"  # told to the sender, who tries again
        return "250 2.0.0 Kept"


def _protocol(store: MailStore, loop: asyncio.AbstractEventLoop) -> SMTP:
    return SMTP(
        _Sink(store),
        data_size_limit=LARGEST_MAIL,
        enable_SMTPUTF8=True,
        hostname="localhost",  # else it asks DNS for the machine's name
        ident="Patrol mail catcher",
        loop=loop,
    )


def _listen(host: str, port: int, setting: str) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        cause = "is taken" if error.errno == errno.EADDRINUSE else f"fails ({error.strerror})"
        raise ConfigurationError(
            f"Port {port} on {host}, for the mail catcher, {cause}; "
            f"set PATROL_{setting.upper()} to another one."
        ) from None
    listener.setblocking(False)
    return listener


def _page(template: str, **values: object) -> HTMLResponse:
    return HTMLResponse(_PAGES.get_template(template).render(**values), headers=_PAGE_HEADERS)


def _find(store: MailStore, request: Request) -> tuple[str, bytes, EmailMessage]:
    mail_id = request.path_params["id"]
    raw = store.source(mail_id)
    if raw is None:
        raise HTTPException(404, "There is no such mail.")
    return mail_id, raw, BytesParser(EmailMessage, policy=modern).parsebytes(raw)


def _summarise(mail_id: str, message: EmailMessage, size: int) -> MailSummary:
    return MailSummary(
        id=mail_id,
        received_at=datetime.fromtimestamp(int(mail_id[:20]) / 1e9, UTC),
        sender=_header(message, "From"),
        to=_header(message, "To"),
        subject=_header(message, "Subject") or "(no subject)",
        message_id=_header(message, "Message-ID"),
        size=size,
    )


def _header(message: EmailMessage, name: str) -> str:
    try:
        return str(message.get(name, ""))
    except (MessageError, ValueError, LookupError, AttributeError, TypeError):
        # The standard library's parser trips over some malformed headers; one such mail must not
        # take the whole mailbox away.
        return "(unreadable)"


def _part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    if body is None:
        return ""
    payload = body.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    try:
        return payload.decode(body.get_content_charset("utf-8"), "replace")
    except LookupError:  # a charset nobody knows
        return payload.decode("utf-8", "replace")
