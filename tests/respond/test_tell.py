"""What people are told: one mail an incident, its first places, and never the token."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from scanner.db.schema import incidents, metadata
from scanner.errors import name_of
from scanner.respond.tell import enqueue_leak_notice


def context(desk) -> dict[str, Any]:
    assert desk.respond()
    (row,) = desk.notices()
    told: dict[str, Any] = row["notice"]["context"]
    return told


def test_ten_places_are_told_and_the_rest_counted(desk) -> None:
    secret, _ = desk.issue()
    for number in range(13):
        desk.leak(secret, f"{number:02}.yml")
    told = context(desk)
    assert [place["path"] for place in told["places"]] == [f"{n:02}.yml" for n in range(10)]
    assert told["more_places"] == 3


def test_places_beyond_the_kept_rows_are_counted_too(desk, leaked: str) -> None:
    with desk.engine.begin() as connection:
        connection.execute(update(incidents).values(sightings=5_000))
    assert context(desk)["more_places"] == 4_999
    assert desk.incident()["id"] == leaked


def test_a_second_leak_is_a_sighting_and_no_second_mail(desk) -> None:
    secret, _ = desk.issue()
    first = desk.leak(secret)
    desk.respond()
    desk.deliver()
    assert desk.leak(secret, "copy.yml") == first
    assert not desk.respond()
    assert not desk.deliver()
    assert desk.incident()["sightings"] == 2
    assert len(desk.delivered) == 1


def test_one_incident_is_one_mail(desk, leaked: str) -> None:
    row = desk.incident()
    with desk.engine.begin() as connection:
        for outcome in ("revoked", "still_active"):
            enqueue_leak_notice(connection, row, outcome=outcome, revoked_at=None)
    (notice,) = desk.notices()
    assert notice["notice"]["context"]["outcome"] == "revoked"
    assert notice["incident_id"] == leaked


def test_the_token_is_nowhere(desk, caplog: pytest.LogCaptureFixture) -> None:
    secret, _ = desk.issue()
    desk.leak(secret)
    desk.channel.refuse(permanent=False)
    context(desk)
    desk.deliver()
    desk.channel.accept()
    desk.let_time_pass(metadata.tables["outbox"])
    desk.deliver()
    raw = secret.reveal().decode()
    pieces = [raw[begin : begin + 8] for begin in range(len(raw) - 7)]
    (sent,) = desk.delivered
    everything = [repr(desk.rows(table)) for table in metadata.sorted_tables]
    everything += [caplog.text, sent.mail.subject, sent.mail.text, sent.mail.html]
    assert raw[-4:] in sent.mail.text  # what may be shown
    assert [piece for piece in pieces for text in everything if piece in text] == []


def test_an_error_nobody_expected_is_named_not_quoted() -> None:
    def fail() -> None:
        raise ValueError("hush-hush-hush")

    with pytest.raises(ValueError, match="hush") as caught:
        fail()
    assert name_of(caught.value).startswith("ValueError at fail, line ")
    assert "hush" not in name_of(caught.value)
