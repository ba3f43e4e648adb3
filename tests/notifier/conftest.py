"""Notices as the service would write them; addresses and masks are obviously made up."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from notifier.notice import Notice

COMMIT = "1f3c2a9d" * 5
LEAK: dict[str, Any] = {
    "kind": "leak",
    "to": "mia.berg@contoso.example",
    "message_id": "<notice-1@patrol.example>",
    "reply_to": "security@contoso.example",
    "context": {
        "recipient_name": "Mia Berg",
        "addressed_as": "owner",
        "token_name": "ci-deploy",
        "token_kind": "Azure DevOps personal access token",
        "mask": "…q7Xd",
        "scopes": ["vso.code_write", "vso.build_execute"],
        "organisation": "Contoso",
        "outcome": "revoked",
        "owner_disabled": False,
        "places": [
            {
                "repository": "contoso/payments",
                "kind": "blob",
                "path": "deploy/pipeline.yml",
                "line": 14,
                "column": 23,
                "commit": COMMIT,
                "url": f"https://github.com/contoso/payments/commit/{COMMIT}",
                "seen_at": "2026-11-24T14:03:12+00:00",
                "pushed_at": "2026-11-24T14:02:58Z",
                "committed_at": "2026-11-24T14:01:40+00:00",
            }
        ],
        "more_places": 0,
        "found_at": "2026-11-24T14:03:12+00:00",
        "revoked_at": "2026-11-24T14:03:13+00:00",
        "incident_id": "inc-4711",
        "help_url": "https://help.contoso.example/leaked-tokens",
        "issuer_name": "Azure DevOps",
    },
}
ALARM: dict[str, Any] = {
    "kind": "alarm",
    "to": "operator@patrol.example",
    "message_id": "<notice-2@patrol.example>",
    "reply_to": None,
    "context": {
        "title": "Revocation is frozen for the store builtin",
        "explanation": "The store knew a token that was never issued.",
        "what_to_do": "Repair the store, then run: patrol policy set --release-store builtin",
        "at": "2026-11-24T14:03:12+00:00",
    },
}


@pytest.fixture
def leak_json() -> dict[str, Any]:
    return copy.deepcopy(LEAK)


@pytest.fixture
def alarm_json() -> dict[str, Any]:
    return copy.deepcopy(ALARM)


@pytest.fixture
def leak() -> Callable[..., Notice]:
    """A leak notice with some context fields changed; `place` changes its one place."""

    def build(place: dict[str, Any] | None = None, **context: Any) -> Notice:
        data = copy.deepcopy(LEAK)
        data["context"].update(context)
        data["context"]["places"][0].update(place or {})
        return Notice.from_json(data)

    return build


@pytest.fixture
def server(smtp_server):
    """The mail server under the short name it has among the mail's own tests."""
    return smtp_server
