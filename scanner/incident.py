"""The incident's life, pure: phases, and the transitions that may happen.

open ──> revoking ──> revoked            we revoked it
  │       ^  └──────> already_revoked    somebody else was faster
  ├──> still_active                      the policy leaves it to the owner
  └──> not_needed                        it was revoked or expired before we saw it

Each end leads back to open: when the token is seen again and works again, an expired one is
prolonged, or the policy is another by then.
"""

from __future__ import annotations

from enum import StrEnum

from scanner.errors import FinalError


class Phase(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    REVOKING = "revoking"
    REVOKED = "revoked"
    ALREADY_REVOKED = "already_revoked"
    STILL_ACTIVE = "still_active"
    NOT_NEEDED = "not_needed"


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.OPEN: frozenset({Phase.REVOKING, Phase.STILL_ACTIVE, Phase.NOT_NEEDED}),
    Phase.REVOKING: frozenset({Phase.REVOKED, Phase.ALREADY_REVOKED}),
    Phase.REVOKED: frozenset({Phase.OPEN}),
    Phase.ALREADY_REVOKED: frozenset({Phase.OPEN}),
    Phase.STILL_ACTIVE: frozenset({Phase.OPEN, Phase.REVOKING}),
    Phase.NOT_NEEDED: frozenset({Phase.OPEN}),
}


# The token may still work: what ends it is to be done, or left to its owner.
UNFINISHED = (Phase.OPEN, Phase.REVOKING, Phase.STILL_ACTIVE)
# The token was revoked, and its owner knows.
ENDED = (Phase.REVOKED, Phase.ALREADY_REVOKED)


def cause_of(incident_id: str, reopenings: int) -> str:
    """The cause under which a store revokes: another one each time, so that what was revoked before
    is not taken for what is to be revoked now."""
    return f"{incident_id}.{reopenings}" if reopenings else incident_id


def advance(current: Phase, target: Phase) -> Phase:
    """Return `target`; raises `FinalError` when the table has no such edge."""
    if target not in TRANSITIONS[current]:
        raise FinalError(f"An incident cannot go from {current.value} to {target.value}.")
    return target
