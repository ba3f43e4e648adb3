"""A response that must wait: it is tried again, for ever, and nobody must take it for done."""

from __future__ import annotations

from sqlalchemy import Connection

from scanner.db import alarms, leases
from scanner.db.alarms import HELD_UP_RETRIES, Topic
from scanner.db.leases import Claim, Patience
from scanner.db.schema import incidents


def give_back(connection: Connection, claim: Claim, said: str, patience: Patience) -> None:
    """Give an incident back for another try, and tell the operator of one that was tried for a
    while: soon after that, and then once a day."""
    state = leases.release(connection, incidents, claim, said, patience)
    retries = claim.retries + 1
    if state == leases.PENDING and retries >= HELD_UP_RETRIES:
        alarms.raise_alarm(
            connection,
            Topic.HELD_UP,
            f"Incident {claim.id}: {said}",
            claim.id,
            since=None if retries == HELD_UP_RETRIES else 0,
        )
