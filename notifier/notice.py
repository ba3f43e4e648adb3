"""A notice: who is told what, as plain JSON values that an outbox can hold.

Only the fields named here pass. A field nobody knows is refused rather than ignored, so that a raw
token cannot travel in one by accident.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urlsplit

OUTCOMES = ("revoked", "revocation_failed", "still_active", "already_revoked")

_MESSAGE_ID = re.compile(r"<[^\s<>@]+@[^\s<>@]+>")
_UNSAFE_IN_URL = re.compile(r"[\s\"'<>`\\\x00-\x20\x7f]")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_MASK = 40  # characters; a mask longer than that would show the token

_Check = Callable[[Any], str | None]  # returns what the value must be, None when it is that


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "must be a non-empty string"


def _string(value: Any) -> str | None:
    return None if isinstance(value, str) else "must be a string"


def _id(value: Any) -> str | None:
    is_id = isinstance(value, str) and _ID.fullmatch(value)
    return None if is_id else "must be letters, digits and hyphens, 64 at most"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _count(value: Any) -> str | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return None if is_count else "must be a whole number, zero or more"


def _time(value: Any) -> str | None:
    wanted = "must be an ISO 8601 time with its zone"
    if not isinstance(value, str):
        return wanted
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return wanted
    return None if moment.tzinfo else wanted


def _web_address(value: Any) -> str | None:
    wanted = "must be an http or https address"
    if not isinstance(value, str) or _UNSAFE_IN_URL.search(value):
        return wanted
    try:
        parts = urlsplit(value)
    except ValueError:
        return wanted
    good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    return None if good else wanted


def _mask(value: Any) -> str | None:
    good = isinstance(value, str) and len(value) <= _LONGEST_MASK
    return None if good else f"must be a mask of at most {_LONGEST_MASK} characters"


def _or_null(check: _Check) -> _Check:
    return lambda value: None if value is None else check(value)


def _one_of(*allowed: str) -> _Check:
    return lambda value: None if value in allowed else f"must be one of {', '.join(allowed)}"


def _list_of_texts(value: Any) -> str | None:
    good = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    return None if good else "must be a list of strings"


def _list_of_objects(value: Any) -> str | None:
    good = isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)
    return None if good else "must be a list of objects"


_PLACE: dict[str, _Check] = {
    "repository": _text,
    "kind": _text,
    "path": _or_null(_string),
    "line": _count,
    "column": _count,
    "commit": _or_null(_text),
    "url": _or_null(_web_address),
    "seen_at": _time,
    "pushed_at": _or_null(_time),
}
_PLACE_OPTIONAL: dict[str, _Check] = {"committed_at": _or_null(_time)}

_CONTEXTS: dict[str, dict[str, _Check]] = {
    "leak": {
        "recipient_name": _or_null(_string),
        "addressed_as": _one_of("owner", "contact"),
        "token_name": _string,
        "token_kind": _text,
        "mask": _mask,
        "scopes": _list_of_texts,
        "organisation": _string,
        "outcome": _one_of(*OUTCOMES),
        "owner_disabled": _flag,
        "places": _list_of_objects,
        "more_places": _count,
        "found_at": _time,
        "revoked_at": _or_null(_time),
        "incident_id": _text,
        "help_url": _or_null(_web_address),
        "issuer_name": _text,
    },
    "alarm": {"title": _text, "explanation": _string, "what_to_do": _string, "at": _time},
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one recipient. Build it with `from_json`, which validates.

    `kind` is "leak" (to the token's owner or the organisation's contact) or "alarm" (to the
    operator). `message_id` has its angle brackets and must stay the same over all attempts, so that
    a second copy is recognised as the same mail. `correlation_id` names the work that led to it, in
    logs and in a header of the mail. `context` is read-only.
    """

    kind: str
    to: str
    message_id: str
    context: Mapping[str, Any]
    reply_to: str | None = None
    correlation_id: str | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build a notice from plain JSON values.

        Raises `ValueError` that names the field that is missing, unknown or of the wrong shape; it
        never quotes a value.
        """
        _check_fields(
            data,
            {"kind": _one_of(*_CONTEXTS), "to": _text, "message_id": _text, "context": _object},
            {"reply_to": _or_null(_string), "correlation_id": _or_null(_id)},
            "notice",
        )
        if not _MESSAGE_ID.fullmatch(data["message_id"]):
            raise ValueError("notice: message_id must look like <id@domain>")
        kind: str = data["kind"]
        where = f"{kind} notice: context"
        context = dict(data["context"])
        _check_fields(context, _CONTEXTS[kind], {}, where)
        if kind == "leak":
            for index, place in enumerate(context["places"]):
                _check_fields(place, _PLACE, _PLACE_OPTIONAL, f"{where}.places[{index}]")
            context["scopes"] = tuple(context["scopes"])
            context["places"] = tuple(
                MappingProxyType({"committed_at": None, **place}) for place in context["places"]
            )
        return cls(
            kind=kind,
            to=data["to"],
            message_id=data["message_id"],
            context=MappingProxyType(context),
            reply_to=data.get("reply_to"),
            correlation_id=data.get("correlation_id"),
        )


def _object(value: Any) -> str | None:
    return None if isinstance(value, Mapping) else "must be an object"


def _check_fields(
    data: Mapping[str, Any],
    required: Mapping[str, _Check],
    optional: Mapping[str, _Check],
    where: str,
) -> None:
    missing = sorted(required.keys() - data.keys())
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}")
    unknown = len(data.keys() - required.keys() - optional.keys())
    if unknown:
        # Not named: a field nobody declared may be called anything.
        raise ValueError(f"{where}: {unknown} unknown field(s)")
    for name, check in {**required, **optional}.items():
        if name in data and (problem := check(data[name])):
            raise ValueError(f"{where}.{name} {problem}")
