"""What people are told: the notice's facts, as plain values, addressed to who can act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from scanner.db import incidents, outbox
from scanner.db.clock import to_iso
from scanner.incident import cause_of
from scanner.model import Validity

_MOST_PLACES = 10


def enqueue_leak_notice(
    connection: Connection, incident: Mapping[str, Any], *, outcome: str, revoked_at: int | None
) -> None:
    """Put the one mail of this incident into the outbox, in the caller's transaction; one more each
    time that its token worked again.

    The owner is told; a disabled owner's organisation contact instead; the operator where neither
    has an address, so that nobody's leak is silent.
    """
    token = incident["token"]
    owner_disabled = incident["validity"] == Validity.OWNER_DISABLED
    owner = None if owner_disabled else token["owner_email"]
    places, total = incidents.list_sightings(connection, incident["id"], _MOST_PLACES)
    outbox.enqueue(
        connection,
        kind="leak",
        dedupe=f"leak:{cause_of(incident['id'], incident['reopenings'])}",
        incident_id=incident["id"],
        notice={
            "kind": "leak",
            "to": owner or token["organisation_contact"],  # null: the operator, set when sent
            "reply_to": token["organisation_contact"],
            "context": {
                "recipient_name": token["owner_name"] if owner else None,
                "addressed_as": "owner" if owner else "contact",
                "token_name": token["name"],
                "token_kind": token["pattern"],
                "mask": token["mask"],
                "scopes": token["scopes"],
                "organisation": token["organisation"],
                "outcome": outcome,
                "owner_disabled": owner_disabled,
                "places": places,
                "more_places": total - len(places),
                "found_at": to_iso(incident["opened_at"]),
                "revoked_at": to_iso(revoked_at),
                "incident_id": incident["id"],
                "help_url": None,
            },
        },
    )
