"""What every notifier `Channel` owes: one delivery, or one error that says retry or final."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from notifier.channels.email import EmailChannel
from notifier.channels.memory import MemoryChannel
from notifier.errors import DeliveryError
from notifier.notice import Notice
from notifier.notify import Channel, notify
from notifier.render import Rendered, Renderer

# Words that an error has no reason to hold: of the recipient, and of the mail.
WORDS = ("grace", "hopper.example", "Rotate", "…q7Xd", "payments/deploy.yml", "notice-1")
MAIL = Rendered(
    subject="Rotate “deploy”: …q7Xd",
    text="Seen in payments/deploy.yml.\n",
    html="<!DOCTYPE html><html><body><p>Seen in payments/deploy.yml.</p></body></html>",
)


def notice(number: int = 1, to: str = "grace@hopper.example") -> Notice:
    return Notice.from_json(
        {
            "kind": "alarm",
            "to": to,
            "message_id": f"<notice-{number}@patrol.example>",
            "reply_to": "security@hopper.example",
            "context": {
                "title": "Rotate …q7Xd",
                "explanation": "Seen in payments/deploy.yml.",
                "what_to_do": "Ask grace",
                "at": "2026-11-24T14:03:12+00:00",
            },
        }
    )


@dataclass(frozen=True)
class Arrival:
    to: str
    message_id: str
    subject: str
    text: str
    html: str


class Bench(Protocol):
    @property
    def channel(self) -> Channel: ...

    def arrivals(self) -> list[Arrival]: ...
    def refuse(self, *, permanent: bool) -> None: ...
    def accept(self) -> None: ...


class EmailBench:
    """Mail, and a server that quotes what it refuses."""

    def __init__(self, server: Any, command: str) -> None:
        self._server = server
        self._command = command
        self.channel = EmailChannel(f"smtp://127.0.0.1:{server.port}", "patrol@patrol.example", 5)

    def arrivals(self) -> list[Arrival]:
        found = []
        for recipients, message in self._server.got:
            text, html = (part.get_content().replace("\r\n", "\n") for part in message.iter_parts())
            (to,) = recipients
            assert message["To"] == to
            found.append(
                Arrival(to, message["Message-ID"], message["Subject"], text, html.rstrip("\n"))
            )
        return found

    def refuse(self, *, permanent: bool) -> None:
        code = "550 5.7.1" if permanent else "451 4.7.1"
        setattr(self._server, self._command, f"{code} {' '.join(WORDS)}".replace("…", ""))

    def accept(self) -> None:
        self._server.rcpt, self._server.data = None, "250 OK"


class MemoryBench:
    def __init__(self) -> None:
        self.channel = MemoryChannel()

    def arrivals(self) -> list[Arrival]:
        return [
            Arrival(
                one.notice.to,
                one.notice.message_id,
                one.mail.subject,
                one.mail.text,
                one.mail.html,
            )
            for one in self.channel.delivered
        ]

    def refuse(self, *, permanent: bool) -> None:
        self.channel.refuse(permanent=permanent)

    def accept(self) -> None:
        self.channel.accept()


@pytest.fixture(params=["email-rcpt", "email-data", "memory"])
def bench(request: pytest.FixtureRequest) -> Bench:
    kind, _, command = request.param.partition("-")
    if kind == "memory":
        return MemoryBench()
    return EmailBench(request.getfixturevalue("smtp_server"), command)


def arrival(of: Notice) -> Arrival:
    return Arrival(of.to, of.message_id, MAIL.subject, MAIL.text, MAIL.html)


def test_one_send_is_one_delivery(bench: Bench) -> None:
    bench.channel.send(notice(), MAIL)
    assert bench.arrivals() == [arrival(notice())]


def test_each_notice_goes_to_its_own_recipient(bench: Bench) -> None:
    sent = [notice(1), notice(2, "ada@lovelace.example"), notice(3)]
    for one in sent:
        bench.channel.send(one, MAIL)
    assert bench.arrivals() == [arrival(one) for one in sent]


def test_the_words_that_were_rendered_go_out(bench: Bench) -> None:
    subject = notify(notice(), bench.channel, Renderer())
    (arrived,) = bench.arrivals()
    words = Renderer().render(notice())
    assert arrived.subject == subject == words.subject
    assert (arrived.text, arrived.html) == (words.text, words.html.rstrip("\n"))


@pytest.mark.parametrize("permanent", [False, True])
def test_a_refusal_says_whether_another_try_can_help(bench: Bench, permanent: bool) -> None:
    bench.refuse(permanent=permanent)
    for _ in range(2):
        with pytest.raises(DeliveryError) as caught:
            bench.channel.send(notice(), MAIL)
        assert caught.value.permanent is permanent
    assert bench.arrivals() == []


@pytest.mark.parametrize("permanent", [False, True])
def test_an_error_quotes_nothing(bench: Bench, permanent: bool) -> None:
    bench.refuse(permanent=permanent)
    with pytest.raises(DeliveryError) as caught:
        notify(notice(), bench.channel, Renderer())
    error = caught.value
    said = "".join(traceback.format_exception(error)) + repr(error) + str(error.args)
    assert str(error)
    assert [word for word in WORDS if word.lower() in said.lower()] == []
    assert error.__cause__ is None


def test_the_next_try_delivers_once(bench: Bench) -> None:
    bench.refuse(permanent=False)
    with pytest.raises(DeliveryError):
        bench.channel.send(notice(), MAIL)
    bench.accept()
    bench.channel.send(notice(), MAIL)
    assert bench.arrivals() == [arrival(notice())]


def test_one_refusal_leaves_the_next_notice_alone(bench: Bench) -> None:
    bench.refuse(permanent=True)
    with pytest.raises(DeliveryError):
        bench.channel.send(notice(1), MAIL)
    bench.accept()
    bench.channel.send(notice(2), MAIL)
    assert bench.arrivals() == [arrival(notice(2))]


@pytest.mark.parametrize("show", [repr, str])
def test_a_channel_shows_nothing_of_what_it_sent(bench: Bench, show: Callable[..., str]) -> None:
    bench.channel.send(notice(), MAIL)
    shown = show(bench.channel)
    assert [word for word in WORDS if word in shown] == []
