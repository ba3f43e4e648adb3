"""Delivery over real SMTP on loopback."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

from notifier.channels.email import EmailChannel
from notifier.errors import DeliveryError
from notifier.notice import Notice
from notifier.notify import notify
from notifier.render import Renderer

BuildLeak = Callable[..., Notice]
SENDER = "Patrol <patrol@patrol.example>"


def send(port: int, notice: Notice, timeout: float = 5) -> str:
    return notify(notice, EmailChannel(f"smtp://127.0.0.1:{port}", SENDER, timeout), Renderer())


def test_a_notice_arrives_whole(server, leak: BuildLeak) -> None:
    notice = leak()
    subject = send(server.port, notice)
    ((recipients, message),) = server.got
    assert recipients == ["mia.berg@contoso.example"]
    assert message["Subject"] == subject
    assert "“ci-deploy”" in subject
    assert message["From"] == SENDER
    assert message["To"] == "mia.berg@contoso.example"
    assert message["Reply-To"] == "security@contoso.example"
    assert message["Message-ID"] == "<notice-1@patrol.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Auto-Response-Suppress"] == "All"
    assert message["Date"].datetime is not None
    assert message.get_content_type() == "multipart/alternative"
    rendered = Renderer().render(notice)
    text, html = message.iter_parts()
    assert text.get_content().replace("\r\n", "\n") == rendered.text
    assert html.get_content_type() == "text/html"
    assert html.get_content().replace("\r\n", "\n").rstrip() == rendered.html.rstrip()


def test_every_attempt_carries_the_same_message_id(server, leak: BuildLeak) -> None:
    for _ in range(2):
        send(server.port, leak())
    assert len({message["Message-ID"] for _, message in server.got}) == 1


def test_a_hostile_token_name_adds_no_header(server, leak: BuildLeak) -> None:
    send(server.port, leak(token_name="x\r\nBcc: mia@evil.example\r\n\r\nbody"))
    ((recipients, message),) = server.got
    assert recipients == ["mia.berg@contoso.example"]
    assert message["Bcc"] is None
    assert message.defects == []


def test_a_reply_to_that_is_no_address_is_left_out(
    server, leak_json: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    leak_json["reply_to"] = "the security team"
    with caplog.at_level(logging.WARNING):
        send(server.port, Notice.from_json(leak_json))
    assert server.got[0][1]["Reply-To"] is None
    assert "Reply-To" in caplog.text


@pytest.mark.parametrize(
    ("command", "answer", "permanent", "status"),
    [
        ("rcpt", "451 4.7.1 Later, mia", False, "recipient (451 4.7.1)"),
        ("rcpt", "550 5.1.1 No such user mia", True, "recipient (550 5.1.1)"),
        ("data", "451 Later, mia", False, "message (451)"),
        ("data", "554 5.7.1 ci-deploy looks like spam", True, "message (554 5.7.1)"),
        ("data", "421 4.3.2 Shutting down, mia", False, "421"),
    ],
)
def test_the_servers_answer_decides(
    server, leak: BuildLeak, command: str, answer: str, permanent: bool, status: str
) -> None:
    setattr(server, command, answer)
    with pytest.raises(DeliveryError) as caught:
        send(server.port, leak())
    assert caught.value.permanent is permanent
    assert status in str(caught.value)
    assert "mia" not in str(caught.value)
    assert "ci-deploy" not in str(caught.value)
    assert server.got == []


def test_a_server_that_is_not_there_is_worth_another_try(leak: BuildLeak) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with pytest.raises(DeliveryError, match="refuses connections") as caught:
            send(unused.getsockname()[1], leak())
    assert caught.value.permanent is False


def test_a_server_that_says_nothing_times_out(leak: BuildLeak) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(DeliveryError, match="in time") as caught,
    ):
        send(silent.getsockname()[1], leak(), timeout=0.05)
    assert caught.value.permanent is False


@pytest.mark.parametrize(
    "address", ["not an address", "a@b\r\nRCPT TO:<c@d>", "@", "<a@b>", "a,b@c"]
)
def test_an_address_that_is_none_is_permanent(
    server, leak_json: dict[str, Any], address: str
) -> None:
    leak_json["to"] = address
    with pytest.raises(DeliveryError, match="address is not usable") as caught:
        send(server.port, Notice.from_json(leak_json))
    assert caught.value.permanent is True
    assert server.got == []


def test_an_address_the_server_cannot_take_is_permanent(server, leak_json: dict[str, Any]) -> None:
    leak_json["to"] = "zoë@contoso.example"
    with pytest.raises(DeliveryError, match="not ASCII") as caught:
        send(server.port, Notice.from_json(leak_json))
    assert caught.value.permanent is True


def test_a_server_without_tls_gets_no_mail_when_tls_is_wanted(server, leak: BuildLeak) -> None:
    for scheme in ("smtp+starttls", "smtps"):
        channel = EmailChannel(f"{scheme}://127.0.0.1:{server.port}", SENDER, 5)
        with pytest.raises(DeliveryError) as caught:
            channel.send(leak(), Renderer().render(leak()))
        assert caught.value.permanent is False
    assert server.got == []


def test_user_and_password_come_from_the_url(smtp_server_with_sign_in, leak: BuildLeak) -> None:
    server = smtp_server_with_sign_in
    mail = Renderer().render(leak())
    url = f"smtp://mia:p%40ss%2Fword%3A1@127.0.0.1:{server.port}"
    EmailChannel(url, SENDER, 5).send(leak(), mail)
    assert server.signed_in[0].login == b"mia"
    assert len(server.got) == 1
    for wrong, said in (("wr0ng-hush", "sign-in \\(535\\)"), ("hush-%C3%A9", "connecting")):
        channel = EmailChannel(f"smtp://mia:{wrong}@127.0.0.1:{server.port}", SENDER, 5)
        with pytest.raises(DeliveryError, match=said) as caught:
            channel.send(leak(), mail)
        assert caught.value.permanent is False  # an operator can mend it
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        assert "hush" not in str(caught.value)
    assert len(server.got) == 1


def test_the_password_is_never_shown() -> None:
    channel = EmailChannel("smtps://mia:hush-hush@mail.example:4650", SENDER)
    assert repr(channel) == "EmailChannel(smtps://mail.example:4650)"
    assert "hush" not in f"{channel} {channel!r}"


@pytest.mark.parametrize(
    "url",
    [
        "http://mia:hush@mail.example",
        "smtp://mia:hush@",
        "smtp://mia:hush@mail.example:port",
        "smtp://mia:hush@mail.example/path",
        "smtp://:hush@mail.example",
        "smtp://mia:hush@[mail",
        "",
    ],
)
def test_an_url_that_is_not_usable_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="SMTP URL") as caught:
        EmailChannel(url, SENDER)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_sender_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="sender's address"):
        EmailChannel("smtp://127.0.0.1", "Patrol")
