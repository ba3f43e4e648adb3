"""The Protocols that use cases see; adapters in git/, stores/ and embedded/ satisfy them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, runtime_checkable

from scanner.model import FetchPlan, Inspection, Lookup, Secret

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Pack:
    """A fetched pack: an anonymous file (never a named one: it holds raw tokens), at offset 0."""

    file: BinaryIO
    size: int  # bytes
    partial: tuple[str, ...] = ()  # e.g. a want the server no longer has


KnownBlobs = Callable[[Sequence[str]], Collection[str]]
"""Of these object ids, those of files that need not be matched again."""


class Fetcher(Protocol):
    """Reads public repositories over smart HTTP. Errors: `FetchError`."""

    def fetch(self, plan: FetchPlan) -> AbstractAsyncContextManager[Pack]:
        """Fetch the objects of `plan` in one request; the pack is gone after the block."""
        ...

    async def list_refs(self, url: str) -> Mapping[str, str]:
        """Return ref name -> object id of every branch and tag, and HEAD."""
        ...


class Inspector(Protocol):
    """Reads a pack and matches every object in it.

    Errors: `MalformedPackError`, `InspectionError`.
    """

    def inspect(
        self, pack: Pack, hash_size: int = 20, known: KnownBlobs | None = None
    ) -> Inspection:
        """Return every candidate of the pack with its places. `hash_size`: 20 (SHA-1) or 32.

        Large files that are `known` are not matched; it is asked about many at a time, seldom.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoreAbilities:
    """What a store can tell and do (law 3): declared, never guessed from its answers."""

    tells_reason: bool  # why a token is not active; else `Validity.INACTIVE`, without its record
    revokes_by: Literal["id", "secret"]  # "secret": only who has the raw token can revoke it
    keeps_cause: bool  # who revoked; else a token that is at its end counts as our act (law 4)
    batch: int  # most secrets of one round trip
    is_replicated: bool = False  # a token may be issued, or revoked, and not be known so yet


class TokenStore(Protocol):
    """The issuer's tokens. Errors: `StoreError`."""

    name: str

    @property
    def abilities(self) -> StoreAbilities:
        """What this store can tell and do."""
        ...

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        """Answer each secret, in order, by full-secret match; a batch is one round trip. One that
        the store cannot answer for, while it answers for others, is `STORE_UNAVAILABLE`: its
        neighbours have their answers all the same."""
        ...

    def revoke(self, token_id: str, incident_id: str, *, secret: Secret | None = None) -> bool:
        """Revoke a token with its cause, alone, in one durable step, though it has expired or its
        owner is disabled. True: it was our act, now or in an attempt before a crash; False: it was
        revoked for another cause, or never issued. A store that keeps no cause answers True for
        every token that is at its end. `secret` is the raw token, for a store that revokes by it
        (without one: `SecretNeededError`); others need none and use none."""
        ...


@runtime_checkable
class MeetsLatecomers(Protocol):
    """A store whose tokens may be recorded after their leak was seen, and are matched then by their
    digests (`scanner/db/late.py`)."""

    def digests(self, secret: Secret) -> Sequence[tuple[str, str]]:
        """Return (chain of keys, digest) of a token that the store does not know, under every chain
        that a record made from now on may have."""
        ...


class BlobLedger(Protocol):
    """Large files that were matched whole under a ruleset (its digest) and held nothing (law 7).

    Whatever it forgets costs time only. It never holds a file that had a candidate.
    """

    def known(self, ruleset: str, object_ids: Sequence[str]) -> set[str]:
        """Return those that are remembered. Never raises: who does not answer knows nothing."""
        ...

    def remember(self, connection: Connection, ruleset: str, object_ids: Iterable[str]) -> None:
        """Remember files in the transaction of their scan's verdict: the ids were computed from
        the bytes that were matched."""
        ...

    def publish(self, ruleset: str, object_ids: Collection[str]) -> None:
        """After that transaction's commit: tell the copies. Never raises."""
        ...

    def distrust(self, object_id: str) -> None:
        """Forget everything, durably, because the entry of this file was false; tell the
        operator."""
        ...


class Waker(Protocol):
    """Tells workers that there may be work. Losing a wake loses only time (law 2)."""

    def wake(self, task: str) -> None:
        """Ask for one run of the named task; never raises for a broker that is away."""
        ...
