from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from notifier.notice import Notice


def test_a_notice_survives_json(leak_json: dict[str, Any]) -> None:
    notice = Notice.from_json(json.loads(json.dumps(leak_json)))
    assert notice.kind == "leak"
    assert notice.reply_to == "security@contoso.example"
    assert notice.context["places"][0]["path"] == "deploy/pipeline.yml"
    assert notice == Notice.from_json(leak_json)


def test_a_notice_cannot_be_changed(leak: Callable[..., Notice]) -> None:
    notice = leak()
    with pytest.raises(TypeError):
        notice.context["mask"] = "other"  # type: ignore[index]


@pytest.mark.parametrize("field", ["kind", "to", "message_id", "context"])
def test_a_missing_field_is_named(leak_json: dict[str, Any], field: str) -> None:
    del leak_json[field]
    with pytest.raises(ValueError, match=f"missing {field}"):
        Notice.from_json(leak_json)


def test_every_context_field_is_needed(
    leak_json: dict[str, Any], alarm_json: dict[str, Any]
) -> None:
    for data in (leak_json, alarm_json):
        for field in data["context"]:
            context = {name: value for name, value in data["context"].items() if name != field}
            with pytest.raises(ValueError, match=f"context: missing {field}$"):
                Notice.from_json({**data, "context": context})


def test_every_place_field_but_the_commit_time_is_needed(leak_json: dict[str, Any]) -> None:
    whole = leak_json["context"]["places"][0]
    for field in whole.keys() - {"committed_at"}:
        leak_json["context"]["places"] = [{k: v for k, v in whole.items() if k != field}]
        with pytest.raises(ValueError, match=rf"places\[0\]: missing {field}$"):
            Notice.from_json(leak_json)


@pytest.mark.parametrize("name", ["secret", "token", "raw"])
def test_a_field_nobody_knows_is_refused_and_not_quoted(
    leak_json: dict[str, Any], name: str
) -> None:
    leak_json["context"][name] = "hush-hush"
    with pytest.raises(ValueError, match="1 unknown") as caught:
        Notice.from_json(leak_json)
    assert "hush" not in str(caught.value)


def test_a_mask_that_shows_too_much_is_refused_and_not_quoted(leak_json: dict[str, Any]) -> None:
    leak_json["context"]["mask"] = "m" * 84
    with pytest.raises(ValueError, match="mask must be a mask of at most 40") as caught:
        Notice.from_json(leak_json)
    assert "mmm" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("outcome", "done"),
        ("addressed_as", "friend"),
        ("owner_disabled", "no"),
        ("more_places", -1),
        ("more_places", True),
        ("found_at", "2026-11-24T14:03:12"),
        ("revoked_at", "yesterday"),
        ("scopes", "vso.code"),
        ("places", [1]),
        ("help_url", "javascript:alert(1)"),
        ("help_url", "https://user@evil.example/"),
        ("help_url", 'https://a.example/"onclick='),
        ("help_url", "https://[broken"),
        ("issuer_name", ""),
        ("token_name", None),
    ],
)
def test_a_value_of_the_wrong_shape_is_refused(
    leak_json: dict[str, Any], field: str, value: Any
) -> None:
    leak_json["context"][field] = value
    with pytest.raises(ValueError, match=rf"context\.{field} must be"):
        Notice.from_json(leak_json)


def test_a_commit_link_is_http_or_absent(leak: Callable[..., Notice]) -> None:
    assert leak({"url": None, "commit": None}).context["places"][0]["url"] is None
    with pytest.raises(ValueError, match=r"places\[0\]\.url must be"):
        leak({"url": "javascript:alert(1)"})


@pytest.mark.parametrize("value", ["no-brackets@x", "<a b@c>", "<a@b>\r\nBcc: x@y", "<ab>"])
def test_a_message_id_must_be_one(leak_json: dict[str, Any], value: str) -> None:
    leak_json["message_id"] = value
    with pytest.raises(ValueError, match="message_id"):
        Notice.from_json(leak_json)


def test_an_unknown_kind_is_refused(leak_json: dict[str, Any]) -> None:
    leak_json["kind"] = "advert"
    with pytest.raises(ValueError, match="kind must be one of leak, alarm"):
        Notice.from_json(leak_json)
