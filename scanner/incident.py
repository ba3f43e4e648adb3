"""The incident's life, pure: phases, and the transitions that may happen.

open ──> revoking ──> revoked            we revoked it
  │       ^  └──────> already_revoked    somebody else was faster
  ├──> still_active                      the policy leaves it to the owner, until it changes
  └──> not_needed ──> open               it was revoked or expired before we saw it; an expired
                                         one may be prolonged, and then there is need after all
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
    Phase.REVOKED: frozenset(),
    Phase.ALREADY_REVOKED: frozenset(),
    Phase.STILL_ACTIVE: frozenset({Phase.REVOKING}),
    Phase.NOT_NEEDED: frozenset({Phase.OPEN}),
}


# The token may still work: what ends it is to be done, or left to its owner.
UNFINISHED = (Phase.OPEN, Phase.REVOKING, Phase.STILL_ACTIVE)


def advance(current: Phase, target: Phase) -> Phase:
    """Return `target`; raises `FinalError` when the table has no such edge."""
    if target not in TRANSITIONS[current]:
        raise FinalError(f"An incident cannot go from {current.value} to {target.value}.")
    return target
