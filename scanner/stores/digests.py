"""Chains of keys: what a token's digest was made with, pure.

A digest in the database names its chain: `k1` is HMAC(k1, token); `k1>k2` is HMAC(k2, HMAC(k1,
token)), what rotating a pepper makes of it without the token; `sha256>k1` is HMAC(k1,
SHA-256(token)), an imported digest under a pepper; and `acme>k1` is the same of a digest that was
made with an issuer's own HMAC key. All HMACs are HMAC-SHA256, and the inner digest is taken as 32
bytes, not as hex.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence

from scanner.errors import ConfigurationError, FinalError, StoreUnavailableError
from scanner.keyring import Key
from scanner.model import Secret

SHA256 = "sha256"  # the first link of what was imported without a key
_LONGEST = 4_096  # characters of a chain, as its column: a hundred turns with the longest ids
_LINK = ">"
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,31}")  # two of them fit into the name of a chain


class DigestRing:
    """Peppers, newest first, and the digests that they make; as they are at one moment.

    `issuer_keys` are those that digests to be imported were made with; nothing is stored under
    them alone. Errors: `ConfigurationError` for key ids that no chain can name.
    """

    def __init__(self, peppers: Sequence[Key], issuer_keys: Sequence[Key] = ()) -> None:
        for key in (*peppers, *issuer_keys):
            if not _KEY_ID.fullmatch(key.id) or key.id == SHA256:
                raise ConfigurationError(
                    f"PATROL_PEPPERS or PATROL_ISSUER_KEYS: the key id {key.id!r} cannot be used; "
                    f"take up to 31 letters, digits, '.', '_' and '-', and not {SHA256!r}."
                )
        self.peppers, self.issuer_keys = tuple(peppers), tuple(issuer_keys)
        self._keys = {key.id: key.value for key in (*peppers, *issuer_keys)}
        if len(self._keys) != len(self.peppers) + len(self.issuer_keys):
            raise ConfigurationError("PATROL_ISSUER_KEYS names a key id of PATROL_PEPPERS.")
        self.newest = peppers[0].id

    @property
    def starts(self) -> tuple[str, ...]:
        """What digests to be imported may have been made with: first links of chains."""
        return (SHA256, *(key.id for key in self.issuer_keys))

    @property
    def bases(self) -> tuple[str, ...]:
        """Every chain that a token which is created or imported from now on may have."""
        return (self.newest, *map(self.wrapped, self.starts))

    def missing(self, chains: Iterable[str]) -> list[str]:
        """Return the ids of keys that `chains` name and the ring lacks, sorted."""
        return sorted({name for chain in chains for name in keys_of(chain)} - set(self._keys))

    def wrapped(self, chain: str) -> str:
        """Return the chain with the newest key as its last link.

        Errors: `FinalError` when no more links fit.
        """
        links = chain.split(_LINK)
        if links[-1] == self.newest:
            return chain
        longer = _LINK.join((*links, self.newest))
        if len(longer) > _LONGEST:
            raise FinalError(
                f"The chain of keys {longer} is longer than {_LONGEST} characters: its tokens "
                "cannot be wrapped once more; issue them anew."
            )
        return longer

    def digest(self, chain: str, secret: Secret) -> str:
        """Return the digest of a token under `chain`, in hex; the ring must hold its keys."""
        first, *rest = chain.split(_LINK)
        if first == SHA256:
            value = hashlib.sha256(secret.reveal()).digest()
        else:
            value = hmac.digest(self._keys[first], secret.reveal(), SHA256)
        return self._under(rest, value).hex()

    def continued(self, chain: str, start: str, digest: str) -> str:
        """Return the digest under `chain`, in hex, from `digest`, in hex, under its beginning
        `start`: a chain or a first link; the ring must hold the keys between the two."""
        rest = chain.removeprefix(start)
        return self._under(rest.split(_LINK)[1:], bytes.fromhex(digest)).hex()

    def _under(self, names: Sequence[str], value: bytes) -> bytes:
        for name in names:
            value = hmac.digest(self._keys[name], value, SHA256)
        return value


class Peppers:
    """A ring that may turn while it is used: take `now()` once for all that belongs together."""

    def __init__(self, ring: Sequence[Key], issuer_keys: Sequence[Key] = ()) -> None:
        self._ring, self._issuer_keys = ring, issuer_keys
        self._last = DigestRing(tuple(ring), issuer_keys)

    def now(self) -> DigestRing:
        """Return the ring as it is at this moment."""
        keys = tuple(self._ring)
        if keys != self._last.peppers:
            self._last = DigestRing(keys, self._issuer_keys)
        return self._last


def begins_with(chain: str, start: str) -> bool:
    """True when `chain` is `start`, or goes on from it."""
    return chain == start or chain.startswith(start + _LINK)


def keys_of(chain: str) -> list[str]:
    """Return the key ids that a chain names."""
    return [name for name in chain.split(_LINK) if name != SHA256]


def require_keys(ring: DigestRing, chains: Iterable[str]) -> None:
    """Raise `StoreUnavailableError` when digests are there that the ring cannot compute: their
    tokens would read "never issued"."""
    if missing := ring.missing(chains):
        raise StoreUnavailableError(
            f"PATROL_PEPPERS or PATROL_ISSUER_KEYS lacks the keys {', '.join(missing)}, which "
            "tokens were stored under; restore them and restart."
        )
