"""The frozen values every room speaks in. Nothing here does I/O or knows a database."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NoReturn


class Secret:
    """Raw token bytes that refuse to be shown: `repr`, `str`, formatting, pickling and JSON.

    `reveal()` is the only way to the bytes, so that every use can be found by its name. The bytes
    are copied on construction: a secret never pins the buffer it was found in.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """Return the raw bytes. Call it only to match, to prove or to seal."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(hidden)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled nor copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret does not tell its state")


class Validity(StrEnum):
    """What a store says of a token (law 3). Never a boolean."""

    ACTIVE = "active"  # also not yet valid: it will be
    REVOKED = "revoked"
    EXPIRED = "expired"
    OWNER_DISABLED = "owner_disabled"
    NEVER_ISSUED = "never_issued"
    INACTIVE = "inactive"  # the store cannot say which of the above
    STORE_UNAVAILABLE = "store_unavailable"
    UNCHECKED = "unchecked"  # nobody asked: a plain scan


class Checksum(StrEnum):
    """Verdict of a token format's own checksum."""

    VALID = "valid"
    INVALID = "invalid"
    ABSENT = "absent"  # the format has none


class ObjectKind(StrEnum):
    """Kind of git object, in git's own words; and names, which are no object but leak as well."""

    COMMIT = "commit"
    TREE = "tree"
    BLOB = "blob"
    TAG = "tag"
    REF = "ref"  # the name of a branch, a tag or the repository itself


@dataclass(frozen=True, slots=True)
class Candidate:
    """A span of bytes that has a token's shape. Source: the matcher."""

    pattern: str  # pattern id, e.g. "azure-devops-pat"
    issuer: str  # e.g. "azure-devops"
    start: int  # byte offsets in the scanned object, end exclusive
    end: int
    secret: Secret
    checksum: Checksum
    mask: str  # what may be shown of the secret (law 1)
    encoding: str = "plain"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a candidate was seen. `path` is as git has it: hostile, unmasked, any bytes (utf-8,
    surrogateescape); whoever stores or shows it masks it first."""

    object_id: str
    kind: ObjectKind
    path: str | None = None  # of a file, or the name of a ref; None: a message, a tree
    commit: str | None = None  # the commit that introduced it, where known
    committed_at: datetime | None = None
    line: int = 1  # from 1, in the object
    column: int = 1  # from 1, in bytes


@dataclass(frozen=True, slots=True)
class LocatedCandidate:
    """A candidate and one place it was seen at. `allowed`: a comment beside it says that it may be
    there; only `patrol scan` sets and heeds it, what comes from a push never has it."""

    candidate: Candidate
    place: Place
    allowed: bool = False


@dataclass(frozen=True, slots=True)
class Inspection:
    """What reading and matching a set of objects gave. `partial` names every bound that was met.

    `bare` are ids of large files that were matched whole and held nothing, not even what a filter
    then ruled out: the blob ledger may remember them.
    """

    found: tuple[LocatedCandidate, ...] = ()
    objects: int = 0
    blobs: int = 0
    bytes: int = 0  # size of all objects, inflated
    scanned_bytes: int = 0  # of these, handed to the matcher
    partial: tuple[str, ...] = ()
    known_blobs: int = 0  # of the blobs, not matched: the ledger knew them
    bare: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What a store knows of one token; nothing in it is secret."""

    store: str
    token_id: str
    name: str
    pattern: str
    mask: str
    organisation_id: str
    organisation: str
    organisation_contact: str | None
    owner_id: str | None
    owner_name: str | None
    owner_email: str | None
    scopes: tuple[str, ...]
    valid_from: datetime | None
    valid_to: datetime | None


@dataclass(frozen=True, slots=True)
class Lookup:
    """A store's answer for one candidate. `token` is set when the full secret matched."""

    validity: Validity
    token: TokenRecord | None = None


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """What to ask of a repository in one request (object ids in hex)."""

    url: str  # https://host/owner/name.git, built by us, without credentials
    wants: tuple[str, ...]
    haves: tuple[str, ...] = ()
    depth: int | None = None  # commits from each want; None: all of them


class AuditAction(StrEnum):
    """Every kind of audit event; the value is what is stored and exported."""

    TOKEN_ISSUED = "token.issued"  # noqa: S105 (an event's name, not a password)
    TOKEN_REVOKED = "token.revoked"  # noqa: S105
    TOKEN_UPDATED = "token.updated"  # noqa: S105
    TOKEN_ROTATED = "token.rotated"  # noqa: S105
    TOKEN_EXPIRED = "token.expired"  # noqa: S105
    IMPORT_STARTED = "import.started"
    IMPORT_FINISHED = "import.finished"
    OWNER_CREATED = "owner.created"
    OWNER_UPDATED = "owner.updated"
    OWNER_DISABLED = "owner.disabled"
    OWNER_ENABLED = "owner.enabled"
    ORGANISATION_CREATED = "organisation.created"
    ORGANISATION_UPDATED = "organisation.updated"
    ORGANISATION_DISABLED = "organisation.disabled"
    ORGANISATION_ENABLED = "organisation.enabled"
    DIGESTS_WRAP_STARTED = "digests.wrap_started"
    DIGESTS_WRAPPED = "digests.wrapped"
    LEAK_FOUND = "leak.found"
    LEAK_SEEN_AGAIN = "leak.seen_again"
    LEAK_UNPROVED = "leak.unproved"  # the store did not answer before the seal expired
    LEAK_REOPENED = "leak.reopened"
    SEAL_EXPIRED = "seal.expired"  # a token that was to be revoked by itself is not held any more
    SIGHTINGS_PRUNED = "sightings.pruned"
    REVOCATION_DECIDED = "revocation.decided"
    REVOCATION_NOT_NEEDED = "revocation.not_needed"
    REVOCATION_WITHHELD = "revocation.withheld"
    RESPONSE_PARKED = "response.parked"
    NOTICE_DELIVERED = "notice.delivered"
    NOTICE_FAILED = "notice.failed"
    KEY_MADE = "key.made"
    KEY_DESTROYED = "key.destroyed"
    POLICY_CHANGED = "policy.changed"
    WATCH_ADDED = "watch.added"
    WATCH_REMOVED = "watch.removed"
    SCAN_PARKED = "scan.parked"
    STORE_FROZEN = "store.frozen"
    STORE_RELEASED = "store.released"
    LEDGER_DISTRUSTED = "ledger.distrusted"  # a file it knew held something after all
