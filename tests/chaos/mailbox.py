"""A mail server that can be away, that greylists, and that takes a mail without saying so."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from enum import Enum
from typing import Any, Self

from aiosmtpd.smtp import SMTP, Envelope, Session


class Mood(Enum):
    """How it answers."""

    TAKES = "takes mail"
    GREYLISTS = "says 451 to every recipient"
    DROPS = "takes a mail and hangs up before it says so"
    HANGS = "does not answer"


@dataclass(frozen=True)
class Mail:
    """One that arrived."""

    message_id: str
    raw: bytes

    def parsed(self) -> EmailMessage:
        return message_from_bytes(self.raw, _class=EmailMessage, policy=default)


class Mailbox:
    """Runs in a thread of its own, on one port however often it goes away and comes back."""

    def __init__(self, port: int) -> None:
        self.port, self.mood = port, Mood.TAKES
        self.mails: list[Mail] = []
        self.dropped: Counter[str] = Counter()  # Message-ID -> taken without a word
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mailbox")
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Transport] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self.come_back()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_away()
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def come_back(self) -> None:
        """Listen (again)."""
        self._run(self._listen())

    def go_away(self) -> None:
        """Refuse connections, and cut those that there are."""
        self._run(self._close())

    def _run(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await self._loop.create_server(
                lambda: SMTP(self, hostname="localhost", loop=self._loop),
                sock=socket.create_server(("127.0.0.1", self.port)),
            )

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in tuple(self._sessions):
            transport.abort()
        self._sessions.clear()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    # What aiosmtpd calls.

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        self._sessions.add(server.transport)
        envelope.mail_from = address
        while self.mood is Mood.HANGS:  # noqa: ASYNC110 (another thread ends it)
            await asyncio.sleep(0.1)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if self.mood is Mood.GREYLISTS:
            return "451 4.7.1 Greylisted, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        raw = envelope.original_content
        assert isinstance(raw, bytes)
        message_id = str(message_from_bytes(raw, policy=default)["Message-ID"])
        self.mails.append(Mail(message_id, raw))
        # Once each: a server that never says yes would get the same mail for ever.
        if self.mood is Mood.DROPS and not self.dropped[message_id]:
            self.dropped[message_id] += 1
            server.transport.abort()
        return "250 OK"

    async def handle_QUIT(self, server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        self._sessions.discard(server.transport)
        return "221 Bye"
