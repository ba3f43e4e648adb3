"""Delivery: to whom, how often, and what is written down when it does not succeed."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from notifier.channels.email import EmailChannel
from notifier.channels.memory import MemoryChannel
from notifier.errors import DeliveryError
from notifier.notice import Notice
from notifier.render import Rendered
from scanner.db import alarms, freezes, leases
from scanner.db.alarms import Topic
from scanner.db.outbox import enqueue
from scanner.db.schema import audit_events, outbox

FAILED, DELIVERED = "notice.failed", "notice.delivered"


class Killed(BaseException):
    """The end of a process, as far as the code in it can tell."""


class Around:
    """Stands before a channel and may do something around each mail."""

    def __init__(self, channel: MemoryChannel, around: Callable[[Notice, Any], None]) -> None:
        self._channel = channel
        self._around = around

    def send(self, notice: Notice, mail: Rendered) -> None:
        self._around(notice, lambda: self._channel.send(notice, mail))


@pytest.fixture
def notice(desk, leaked: str) -> Callable[[], dict[str, Any]]:
    """The row of the one mail that waits."""
    assert desk.respond()

    def row() -> dict[str, Any]:
        (only,) = (
            row for row in desk.notices() if (row["incident_id"], row["kind"]) == (leaked, "leak")
        )
        return only

    return row


def outcomes(desk) -> list[str]:
    return [action for action in desk.actions() if action in (FAILED, DELIVERED)]


def add(desk, name: str, **changes: Any) -> None:
    """An alarm that waits to be sent."""
    context = {"title": name, "explanation": "", "what_to_do": "", "at": "2026-11-24T14:03:12Z"}
    with desk.engine.begin() as connection:
        enqueue(
            connection,
            kind="alarm",
            dedupe=name,
            notice={"to": None, "reply_to": None, "context": {**context, **changes}},
        )


def test_the_mail_says_what_the_incident_says(desk, notice) -> None:
    assert desk.deliver()
    (sent,) = desk.delivered
    row = notice()
    context = sent.notice.context
    incident = desk.incident()
    assert (context["incident_id"], context["mask"]) == (incident["id"], incident["token"]["mask"])
    assert context["token_kind"] == "Azure DevOps personal access token"
    assert context["issuer_name"] == "Contoso"
    (place,) = context["places"]
    assert (place["repository"], place["path"]) == ("acme/app", "deploy.yml")
    assert context["more_places"] == 0
    assert (row["state"], row["subject"], row["error"]) == ("done", sent.mail.subject, None)
    assert row["created_at"] <= row["sent_at"] <= desk.now()
    assert sent.notice.message_id == f"<{row['id']}@patrol.example>"
    (event,) = (e for e in desk.rows(audit_events) if e["action"] == DELIVERED)
    assert event["incident_id"] == incident["id"]
    assert event["data"] == {
        "channel": "email", "notice": "leak", "organisation": "Acme", "to": "ada@acme.example",
    }  # fmt: skip
    assert not desk.deliver()


@pytest.mark.parametrize(
    ("owner", "contact", "told", "addressed_as"),
    [
        ("ada@acme.example", "security@acme.example", "ada@acme.example", "owner"),
        ("ada@acme.example", None, "ada@acme.example", "owner"),
        (None, "security@acme.example", "security@acme.example", "contact"),
        ("", "security@acme.example", "security@acme.example", "contact"),
        (None, None, "operator@patrol.example", "contact"),
    ],
)
def test_somebody_is_always_told(
    desk, owner: str | None, contact: str | None, told: str, addressed_as: str
) -> None:
    secret, _ = desk.issue(owner_email=owner, organisation_contact=contact)
    desk.leak(secret)
    desk.respond()
    assert desk.deliver()
    (sent,) = desk.delivered
    assert (sent.notice.to, sent.notice.reply_to) == (told, contact)
    assert sent.notice.context["addressed_as"] == addressed_as
    assert desk.notices()[0]["state"] == "done"
    assert outcomes(desk) == [DELIVERED]


def test_a_freeze_alarms_the_operator(desk) -> None:
    with desk.engine.begin() as connection:
        freezes.freeze(connection, "memory", "it lies")
    assert desk.deliver()
    (sent,) = desk.delivered
    assert (sent.notice.kind, sent.notice.to) == ("alarm", "operator@patrol.example")
    assert outcomes(desk) == [DELIVERED]


def test_a_mail_server_that_is_down_is_tried_again_later(desk, notice) -> None:
    desk.channel.refuse(permanent=False)
    for tries in (1, 2):
        put_off = desk.now()
        assert desk.deliver()
        row = notice()
        assert (row["state"], row["attempts"], row["retries"]) == ("pending", 0, tries)
        assert row["available_at"] >= put_off + 1_000 * 2 ** (tries - 1)
        assert row["error"] == "the channel was told to refuse"
        assert not desk.deliver()
        desk.let_time_pass(outbox)
    assert outcomes(desk) == []
    desk.channel.accept()
    assert desk.deliver()
    assert len(desk.delivered) == 1
    assert (notice()["state"], notice()["error"]) == ("done", None)
    assert outcomes(desk) == [DELIVERED]


def test_a_mail_server_that_stays_down_is_given_up_and_shown(desk, notice) -> None:
    desk.channel.refuse(permanent=False)
    for _ in range(3):
        assert desk.deliver()
        desk.let_time_pass(outbox)
    assert (notice()["state"], notice()["error"]) == ("parked", "the channel was told to refuse")
    assert outcomes(desk) == [FAILED]
    # What waits now is the operator's.
    assert [row["kind"] for row in desk.notices() if row["state"] == "pending"] == ["alarm"]


def test_what_is_refused_for_good_is_parked_at_once(desk, notice) -> None:
    desk.channel.refuse(permanent=True)
    assert desk.deliver()
    assert (notice()["state"], notice()["error"]) == ("parked", "the channel was told to refuse")
    (event,) = (e for e in desk.rows(audit_events) if e["action"] == FAILED)
    assert event["incident_id"] == notice()["incident_id"]
    assert event["data"]["error"] == "the channel was told to refuse"
    desk.let_time_pass(outbox)
    assert desk.deliver()  # the alarm, which is refused as well
    assert not desk.deliver()
    # The operator mends it.
    desk.channel.accept()
    with desk.engine.begin() as connection:
        assert leases.retry_parked(connection, outbox) == 2
    assert desk.deliver()
    assert outcomes(desk) == [DELIVERED, DELIVERED, FAILED, FAILED]


def test_a_revocation_does_not_wait_for_its_mail(desk, notice) -> None:
    desk.channel.refuse(permanent=True)
    desk.deliver()
    assert desk.incident()["phase"] == "revoked"


def test_poison_leaves_its_neighbours_alone_and_is_parked(desk) -> None:
    add(desk, "before")
    add(desk, "poison", hush="a field that no notice has")
    add(desk, "after")
    for _ in range(4):
        assert desk.deliver()
        desk.let_time_pass(outbox)
    assert sorted(sent.notice.context["title"] for sent in desk.delivered) == ["after", "before"]
    states = {row["dedupe"]: (row["state"], row["attempts"]) for row in desk.notices()}
    assert states == {"before": ("done", 1), "poison": ("parked", 3), "after": ("done", 1)}
    assert outcomes(desk) == [DELIVERED, DELIVERED, FAILED]
    (event,) = (e for e in desk.rows(audit_events) if e["action"] == FAILED)
    assert event["data"]["error"].startswith("ValueError at ")
    assert "hush" not in json.dumps(event["data"])


def test_killed_after_the_mail_was_accepted_it_goes_out_twice_as_the_same(desk, notice) -> None:
    def around(_notice: Notice, send: Any) -> None:
        send()
        raise Killed

    with pytest.raises(Killed):
        desk.deliver(Around(desk.channel, around))
    assert not desk.deliver()  # the lease holds
    desk.let_time_pass(outbox)
    assert desk.deliver()
    one, two = desk.delivered
    assert one.notice.message_id == two.notice.message_id
    assert outcomes(desk) == [DELIVERED]
    assert notice()["state"] == "done"


def test_killed_before_the_mail_was_accepted_it_goes_out_once(desk, notice) -> None:
    def around(_notice: Notice, _send: Any) -> None:
        raise Killed

    with pytest.raises(Killed):
        desk.deliver(Around(desk.channel, around))
    desk.let_time_pass(outbox)
    assert desk.deliver()
    assert len(desk.delivered) == 1
    assert outcomes(desk) == [DELIVERED]
    assert notice()["attempts"] == 2


def test_a_slow_server_makes_no_mail_go_out_twice(desk) -> None:
    """The batch outlasts its leases; what another worker took meanwhile is left to it."""
    for name in ("one", "two", "three"):
        add(desk, name)
    slow = True

    def around(_notice: Notice, send: Any) -> None:
        nonlocal slow
        send()
        if slow:
            slow = False
            running = update(outbox).where(outbox.c.state == leases.RUNNING)
            with desk.engine.begin() as connection:
                connection.execute(running.values(lease_until=1))
                # This one is being sent: its own lease was begun anew a moment ago.
                current = outbox.c.dedupe == _notice.context["title"]
                connection.execute(running.where(current).values(lease_until=desk.now() + 60_000))
            while desk.deliver():
                pass

    assert desk.deliver(Around(desk.channel, around))
    titles = [sent.notice.context["title"] for sent in desk.delivered]
    assert sorted(titles) == ["one", "three", "two"]
    assert outcomes(desk) == [DELIVERED] * 3


def test_workers_at_once_send_each_mail_once(desk) -> None:
    names = [f"{number:02}" for number in range(40)]
    for name in names:
        add(desk, name)
    workers = [desk.deliverer() for _ in range(3)]
    gate = threading.Barrier(3)

    def work(worker: Any) -> None:
        gate.wait(30)
        while worker.run_batch():
            pass

    threads = [threading.Thread(target=work, args=[worker]) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sent.notice.context["title"] for sent in desk.delivered) == names
    assert outcomes(desk) == [DELIVERED] * 40


def test_over_smtp(desk, notice, smtp_server) -> None:
    channel = EmailChannel(f"smtp://127.0.0.1:{smtp_server.port}", "patrol@patrol.example", 5)
    smtp_server.rcpt = "451 4.7.1 Later"
    assert desk.deliver(channel)
    assert (notice()["state"], notice()["retries"]) == ("pending", 1)
    assert "451 4.7.1" in notice()["error"]
    desk.let_time_pass(outbox)
    smtp_server.rcpt = "550 5.1.1 No such user"
    assert desk.deliver(channel)
    assert notice()["state"] == "parked"
    assert outcomes(desk) == [FAILED]
    with desk.engine.begin() as connection:
        leases.retry_parked(connection, outbox)
    smtp_server.rcpt = None
    assert desk.deliver(channel)
    (mail,) = (mail for to, mail in smtp_server.got if to == ["ada@acme.example"])
    assert mail["Message-ID"] == f"<{notice()['id']}@patrol.example>"
    assert outcomes(desk) == [DELIVERED, DELIVERED, FAILED]  # the operator was told as well


def test_nobody_listens(desk, notice) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    channel = EmailChannel(f"smtp://127.0.0.1:{port}", "patrol@patrol.example", 5)
    assert desk.deliver(channel)
    assert (notice()["state"], notice()["error"]) == (
        "pending",
        "the mail server refuses connections",
    )


def test_an_address_that_is_none_is_parked(desk, smtp_server) -> None:
    secret, _ = desk.issue(owner_email="ada at acme")
    desk.leak(secret)
    desk.respond()
    channel = EmailChannel(f"smtp://127.0.0.1:{smtp_server.port}", "patrol@patrol.example", 5)
    assert desk.deliver(channel)
    assert [row["state"] for row in desk.notices() if row["kind"] == "leak"] == ["parked"]
    assert outcomes(desk) == [FAILED]


def alarm_of(desk) -> Any:
    (mail,) = (one for one in desk.delivered if one.notice.kind == "alarm")
    return mail.notice.context


def test_refused_mails_are_one_alarm_that_counts_them(desk) -> None:
    for number in range(3):
        secret, _ = desk.issue(owner_email=f"ada {number} at acme")
        desk.leak(secret)
    desk.respond()
    while desk.deliver(Particular(desk.channel)):
        pass
    context = alarm_of(desk)
    assert context["title"] == "3 mails were refused for good"
    assert context["explanation"].endswith(" So it is with 3 in all.")
    assert "at acme" not in str(dict(context))
    kinds = sorted((row["kind"], row["state"]) for row in desk.notices())
    assert kinds == [("alarm", "done"), ("alarm", "pending")] + [("leak", "parked")] * 3


class Particular:
    """A channel that takes no address with a space in it."""

    def __init__(self, channel: MemoryChannel) -> None:
        self._channel = channel

    def send(self, notice: Notice, mail: Rendered) -> None:
        if " " in notice.to:
            raise DeliveryError("the recipient's address is not usable", permanent=True)
        self._channel.send(notice, mail)


def test_an_alarm_that_is_refused_raises_no_other(desk, caplog: pytest.LogCaptureFixture) -> None:
    add(desk, "Freeze")

    def refuse(_notice: Notice, _send: Any) -> None:
        raise DeliveryError("the mail server refused the recipient (550)", permanent=True)

    desk.deliver(Around(desk.channel, refuse))
    assert [row["state"] for row in desk.notices()] == ["parked"]
    assert "an alarm to the operator was refused: the mail server refused" in caplog.text


def test_an_alarm_says_what_there_is_when_it_goes(desk, leaked: str) -> None:
    with desk.engine.begin() as connection:
        alarms.raise_alarm(connection, Topic.PARKED_RESPONSES, "Incident x: no.", leaked)
    assert desk.deliver()  # nothing is parked any more
    context = alarm_of(desk)
    assert context["title"] == "The response to a leaked token has stopped"
    assert context["explanation"] == (
        "Incident x: no. Since then it has gone on by itself, or was put back to work."
    )
