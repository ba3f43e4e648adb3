"""A notice: who is told what, as plain values. It never holds a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REQUIRED: dict[str, frozenset[str]] = {
    "leak": frozenset(
        {
            "recipient_name", "addressed_as", "token_name", "token_kind", "mask", "scopes",
            "organisation", "outcome", "owner_disabled", "places", "more_places", "found_at",
            "revoked_at", "incident_id", "help_url", "issuer_name",
        }
    ),
    "alarm": frozenset({"title", "explanation", "what_to_do", "at"}),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one recipient. `message_id` is stable over attempts."""

    kind: str
    to: str
    message_id: str
    context: Mapping[str, Any]
    reply_to: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in REQUIRED:
            raise ValueError(f"unknown kind of notice: {self.kind!r}")
        missing = REQUIRED[self.kind] - self.context.keys()
        if missing:
            raise ValueError(f"a {self.kind} notice needs {', '.join(sorted(missing))}")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Notice:
        """Build a notice from plain values; `ValueError` names what is missing."""
        try:
            return cls(
                kind=value["kind"],
                to=value["to"],
                message_id=value["message_id"],
                context=dict(value["context"]),
                reply_to=value.get("reply_to"),
            )
        except KeyError as error:
            raise ValueError(f"a notice needs {error.args[0]}") from None
