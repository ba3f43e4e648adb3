"""What to do about a proved leak, pure: (the store's answer, the rules) -> action."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scanner.model import Validity


class Action(StrEnum):
    """The response to one leaked token."""

    REVOKE = "revoke"
    NOTIFY = "notify"  # the owner must act
    RECORD = "record"  # nothing is left to stop


@dataclass(frozen=True, slots=True)
class Policy:
    """An organisation's rules. Version 0 is the built-in default: revoke."""

    version: int = 0
    auto_revoke: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """The action, why, and under which version of the policy."""

    action: Action
    reason: str
    policy_version: int


def decide(validity: Validity, policy: Policy) -> Decision:
    """Decide for a token that the store proved in full; anything weaker never comes here."""
    if validity in (Validity.REVOKED, Validity.EXPIRED):
        return Decision(Action.RECORD, f"the token was already {validity.value}", policy.version)
    if validity is Validity.OWNER_DISABLED:
        # Dormant, not dead: it works again the day access returns. Revoking it costs nobody.
        return Decision(Action.REVOKE, "its owner is disabled", policy.version)
    if validity is Validity.ACTIVE and policy.auto_revoke:
        return Decision(Action.REVOKE, "the policy revokes leaked tokens", policy.version)
    if validity is Validity.ACTIVE:
        return Decision(Action.NOTIFY, "the policy leaves revoking to the owner", policy.version)
    return Decision(Action.NOTIFY, "the store cannot say whether it is active", policy.version)
