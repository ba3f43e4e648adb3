"""A token store in memory: for tests, and for trying a policy without a database behind it.

It answers as the contract of `ports.TokenStore` says, and can be told to break it: to be away, or
to claim the same of every token, the never-issued control among them (threat 12).
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import token_bytes, token_hex

from scanner.errors import SecretNeededError, StoreUnavailableError
from scanner.model import Lookup, Secret, TokenRecord, Validity
from scanner.ports import StoreAbilities

_ABILITIES = StoreAbilities(tells_reason=True, revokes_by="id", keeps_cause=True, batch=1_000)
_UNKNOWN = (Validity.NEVER_ISSUED, Validity.INACTIVE)


@dataclass(slots=True)
class _Token:
    record: TokenRecord
    revoked_by: str | None = None


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryTokenStore:
    """Finds, issues and revokes tokens; all is gone with the process. Satisfies `ports.TokenStore`.

    Safe to share between threads. Raw tokens are not kept, only digests under a key of its own.
    While `is_available` is False, every question raises `StoreUnavailableError`. While `claims` is
    set, it is the answer for every token: a claim to know comes with a record, for a token that was
    never issued with another one's, as from a query that lost its condition. `clock` tells the
    time, aware. `abilities` makes it as poor as a remote one: without reasons, without causes, or
    one that revokes only by the raw token.
    """

    def __init__(
        self,
        name: str = "memory",
        clock: Callable[[], datetime] = _now,
        abilities: StoreAbilities = _ABILITIES,
    ) -> None:
        self.name = name
        self.abilities = abilities
        self.is_available = True
        self.claims: Validity | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._key = token_bytes(32)
        self._ids: dict[bytes, str] = {}
        self._tokens: dict[str, _Token] = {}
        self._disabled: set[str] = set()

    def issue(
        self,
        secret: Secret,
        *,
        organisation: str = "Acme",
        organisation_contact: str | None = None,
        owner: str = "Ada",
        owner_email: str | None = None,
        name: str = "token",
        pattern: str = "",
        mask: str = "",
        scopes: Sequence[str] = (),
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
    ) -> str:
        """Record a new token and return its id; owners and organisations are known by name."""
        record = TokenRecord(
            store=self.name,
            token_id=token_hex(12),
            name=name,
            pattern=pattern,
            mask=mask,
            organisation_id=organisation,
            organisation=organisation,
            organisation_contact=organisation_contact,
            owner_id=owner,
            owner_name=owner,
            owner_email=owner_email,
            scopes=tuple(scopes),
            valid_from=valid_from or self._clock(),
            valid_to=valid_to,
        )
        with self._lock:
            self._ids[self._digest(secret)] = record.token_id
            self._tokens[record.token_id] = _Token(record)
        return record.token_id

    def restore(self, token_id: str) -> None:
        """Let a revoked token work again, as some issuers can."""
        with self._lock:
            self._tokens[token_id].revoked_by = None

    def disable_owner(self, owner: str) -> None:
        """Close an owner's account; the tokens stay as they are."""
        with self._lock:
            self._disabled.add(owner)

    def enable_owner(self, owner: str) -> None:
        """Open it again."""
        with self._lock:
            self._disabled.discard(owner)

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        """Answer each secret, in order."""
        self._require()
        now = self._clock()
        with self._lock:
            return [self._lookup(self._ids.get(self._digest(secret)), now) for secret in secrets]

    def revoke(self, token_id: str, incident_id: str, *, secret: Secret | None = None) -> bool:
        """Revoke a token with its cause. True: it was this incident's act, now or before."""
        self._require()
        if self.abilities.revokes_by == "secret" and secret is None:
            raise SecretNeededError(
                f"The store {self.name} revokes only by the token itself, which is not kept."
            )
        with self._lock:
            if self.abilities.revokes_by == "secret" and secret is not None:
                token_id = self._ids.get(self._digest(secret), "")
            token = self._tokens.get(token_id)
            if token is None:  # who cannot say "never issued" finds it as dead as a revoked one
                return not self.abilities.tells_reason
            if token.revoked_by is None:
                token.revoked_by = incident_id
            return token.revoked_by == incident_id or not self.abilities.keeps_cause

    def revoke_by_hand(self, token_id: str, actor: str) -> bool:
        """A person revokes; False when it was revoked before, or never issued."""
        with self._lock:
            token = self._tokens.get(token_id)
            if token is None or token.revoked_by is not None:
                return False
            token.revoked_by = actor
        return True

    def _require(self) -> None:
        if not self.is_available:
            raise StoreUnavailableError(f"The token store {self.name} did not answer.")

    def _digest(self, secret: Secret) -> bytes:
        return hmac.digest(self._key, secret.reveal(), "sha256")

    def _lookup(self, token_id: str | None, now: datetime) -> Lookup:
        token = None if token_id is None else self._tokens[token_id]
        if self.claims in _UNKNOWN:
            return Lookup(self.claims)
        if self.claims is not None:
            shown = token or next(iter(self._tokens.values()), None)
            return Lookup(self.claims, shown.record if shown else None)
        validity = Validity.NEVER_ISSUED if token is None else self._validity(token, now)
        if validity is not Validity.ACTIVE and not self.abilities.tells_reason:
            return Lookup(Validity.INACTIVE)
        return Lookup(validity, None if token is None else token.record)

    def _validity(self, token: _Token, now: datetime) -> Validity:
        if token.revoked_by is not None:
            return Validity.REVOKED
        if token.record.valid_to is not None and token.record.valid_to <= now:
            return Validity.EXPIRED
        if token.record.owner_id in self._disabled:
            return Validity.OWNER_DISABLED
        return Validity.ACTIVE
