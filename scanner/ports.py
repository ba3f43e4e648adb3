"""The Protocols that use cases see; adapters in git/, stores/ and embedded/ satisfy them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from scanner.model import FetchPlan, Inspection, Lookup, Secret


@dataclass(frozen=True, slots=True)
class Pack:
    """A fetched pack: an anonymous file (never a named one: it holds raw tokens), at offset 0."""

    file: BinaryIO
    size: int  # bytes
    partial: tuple[str, ...] = ()  # e.g. a want the server no longer has


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

    def inspect(self, pack: Pack, hash_size: int = 20) -> Inspection:
        """Return every candidate of the pack with its places. `hash_size`: 20 (SHA-1) or 32."""
        ...


class TokenStore(Protocol):
    """The issuer's tokens. Errors: `StoreError`."""

    name: str

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        """Answer each secret, in order, by full-secret match; a batch is one round trip."""
        ...

    def revoke(self, token_id: str, incident_id: str) -> bool:
        """Revoke a token with its cause, alone, in one durable step, though it has expired or its
        owner is disabled. True: it was our act, now or in an attempt before a crash; False: it was
        revoked for another cause, or never issued."""
        ...


class Waker(Protocol):
    """Tells workers that there may be work. Losing a wake loses only time (law 2)."""

    def wake(self, task: str) -> None:
        """Ask for one run of the named task; never raises for a broker that is away."""
        ...
