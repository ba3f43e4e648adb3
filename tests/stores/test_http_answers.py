"""What a service says of a token, read into its record: types, times, addresses, lengths."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from scanner.errors import StoreUnavailableError
from scanner.matcher.engine import Matcher
from scanner.model import Lookup, Secret, Validity
from scanner.stores.http_answers import AnswerReader
from scanner.stores.http_config import Fields, Organisation

NewSecret = Callable[[], Secret]
NAMES = [name for name in Fields.model_fields if name != "times"]
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ACME = Organisation(id="acme", name="Acme", contact="security@acme.example")


@pytest.fixture
def read(matcher: Matcher, new_secret: NewSecret) -> Callable[..., Lookup]:
    """Read an item whose names are ours."""

    def read_(
        item: Any, validity: Validity = Validity.ACTIVE, given: Organisation = ACME, **kept: Any
    ) -> Lookup:
        fields = Fields(**{name: name for name in NAMES}, **kept)
        return AnswerReader("acme", fields, given, matcher).lookup(validity, item, new_secret())

    return read_


def test_a_full_record(read) -> None:
    record = read(
        {
            "token_id": "t1", "name": "deploy", "organisation_id": "o1", "organisation": "Org",
            "organisation_contact": "s@org.example", "owner_id": 17, "owner_name": "Ada",
            "owner_email": "ada@org.example", "scopes": ["read", "write"],
            "valid_from": MOMENT.isoformat(), "valid_to": MOMENT.timestamp(), "more": {"x": [1]},
        }
    ).token  # fmt: skip
    assert (record.store, record.token_id, record.name) == ("acme", "t1", "deploy")
    assert (record.organisation_id, record.organisation) == ("o1", "Org")
    assert record.organisation_contact == "s@org.example"
    assert (record.owner_id, record.owner_name) == ("17", "Ada")
    assert record.owner_email == "ada@org.example"
    assert record.scopes == ("read", "write")
    assert record.valid_from == record.valid_to == MOMENT
    assert record.pattern == "npm-access-token"
    assert record.mask.startswith("npm_…")


def test_what_the_service_does_not_say(read) -> None:
    record = read({"token_id": "t1", **dict.fromkeys(NAMES[1:])}).token
    assert record == read({"token_id": "t1"}).token.__class__(
        store="acme", token_id="t1", name="", pattern="npm-access-token", mask=record.mask,
        organisation_id="acme", organisation="Acme", organisation_contact="security@acme.example",
        owner_id=None, owner_name=None, owner_email=None, scopes=(), valid_from=None, valid_to=None,
    )  # fmt: skip
    bare = read({"token_id": "t1"}, given=Organisation(id="acme")).token
    assert (bare.organisation, bare.organisation_contact) == ("acme", None)
    with pytest.raises(StoreUnavailableError, match=r"fields\.organisation_id"):
        read({"token_id": "t1"}, given=Organisation())


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, bad) for name in NAMES for bad in ([1, 2], {"a": 1}, True)]
    + [(name, 1.5) for name in NAMES if not name.startswith("valid")]
    + [("token_id", bad) for bad in ("x" * 201, "a b", "\0", "a\ud800", ".", "..", "a\n")]
    + [("organisation_id", "x" * 65), ("owner_id", "x" * 201), ("owner_id", "\0")]
    + [("scopes", ["a", 1]), ("scopes", [None])]
    + [
        ("valid_to", bad)
        for bad in ("soon", "", "2026-01-02", "2026-01-02T03:04:05", 1e300, -1e300, 10**30)
    ],
)
def test_what_is_not_as_it_must_be_is_no_answer(read, name: str, value: Any) -> None:
    with pytest.raises(StoreUnavailableError, match=rf"fields\.{name}\.$"):
        read({"token_id": "t1", name: value})


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05Z", "2026-01-02T05:04:05+02:00"])
def test_times_are_read_with_their_offset(read, text: str) -> None:
    assert read({"token_id": "t1", "valid_to": text}).token.valid_to == MOMENT


def test_times_may_be_counted_in_milliseconds(read) -> None:
    item = {"token_id": "t1", "valid_to": int(MOMENT.timestamp() * 1000)}
    assert read(item, times="milliseconds").token.valid_to == MOMENT


@pytest.mark.parametrize(
    "address",
    ["nobody", "a@b, c@d", "a@b\nBcc: c@d", "<a@b>", "a@", "@b", "x" * 65 + "@b", "a@" + "b" * 256],
)
def test_what_is_no_address_gets_no_mail(
    read, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    record = read({"token_id": "t1", "owner_email": address, "organisation_contact": address}).token
    assert record.owner_email is None
    assert record.organisation_contact == "security@acme.example"
    assert [r.getMessage() for r in caplog.records] == [
        f"store acme: fields.{name} holds no e-mail address"
        for name in ("organisation_contact", "owner_email")
    ]


def test_free_text_is_masked_and_short(read, new_secret: NewSecret) -> None:
    other = new_secret().reveal().decode()
    item = {
        "token_id": "t1",
        "name": f"copy of {other} " + "x" * 1_000,
        "owner_name": f"\0{other}",
        "scopes": f"a {other}",
        "organisation": other,
    }
    lookup = read(item)
    assert other not in repr(lookup)
    assert lookup.token.name.startswith("copy of npm_…")
    assert len(lookup.token.name) == 200
    assert lookup.token.owner_name.startswith("\ufffdnpm_…")


@pytest.mark.parametrize("about", ["x{}", "{}x", "x" * 120 + "{}", "{0}{0}"])
def test_an_owner_who_names_all_he_can_by_the_token(
    matcher: Matcher, new_secret: NewSecret, about: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A pattern's bounds would let it pass, and an address cannot be masked; no piece is kept."""
    secret = new_secret()
    raw = secret.reveal().decode()
    chosen = about.format(raw)
    item = {
        "token_id": "t1", "name": chosen, "organisation": chosen, "owner_name": chosen,
        "scopes": [chosen, "read"], "owner_id": chosen[:200], "owner_email": f"{raw}@evil.example",
        "organisation_contact": f"a@{raw.lower()}.example",
    }  # fmt: skip
    fields = Fields(**{name: name for name in NAMES})
    lookup = AnswerReader("acme", fields, ACME, matcher).lookup(Validity.ACTIVE, item, secret)
    shown = repr(lookup) + caplog.text
    assert not any(raw[at : at + 8].lower() in shown.lower() for at in range(len(raw) - 7))
    record = lookup.token
    assert record.name == about.format(record.mask)[:200]
    assert (record.owner_id, record.owner_email) == (None, None)
    assert record.organisation_contact == "security@acme.example"
    assert record.scopes[1] == "read"


@pytest.mark.parametrize("name", ["token_id", "organisation_id"])
def test_an_id_that_is_the_token_is_no_answer(
    matcher: Matcher, new_secret: NewSecret, name: str
) -> None:
    secret = new_secret()
    item = {"token_id": "t1", name: f"id:{secret.reveal().decode()}"}
    reader = AnswerReader("acme", Fields(**{name: name for name in NAMES}), ACME, matcher)
    with pytest.raises(StoreUnavailableError, match=rf"the token itself at fields\.{name}\.$"):
        reader.lookup(Validity.ACTIVE, item, secret)


def test_an_address_that_holds_another_token_gets_no_mail(read, new_secret: NewSecret) -> None:
    other = new_secret().reveal().decode()
    lookup = read({"token_id": "t1", "owner_email": f"{other}@evil.example"})
    assert lookup.token.owner_email is None


def test_never_issued_has_no_record_and_inactive_may(read) -> None:
    assert read({"token_id": "t1"}, Validity.NEVER_ISSUED) == Lookup(Validity.NEVER_ISSUED)
    assert read({}, Validity.INACTIVE) == Lookup(Validity.INACTIVE)
    assert read({"token_id": "t1"}, Validity.INACTIVE).token.token_id == "t1"
