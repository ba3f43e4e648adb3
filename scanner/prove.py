"""Asking the store, with a control: a never-issued token rides in every batch (threat 12)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from scanner.errors import StoreUnavailableError, StoreUntrustedError
from scanner.metrics import STORE_ANSWERS, STORE_SECONDS
from scanner.model import Lookup, Secret, Validity
from scanner.ports import TokenStore

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CONTROL_LENGTH = 84
_KNOWN = (Validity.ACTIVE, Validity.REVOKED, Validity.EXPIRED, Validity.OWNER_DISABLED)
# A store that cannot tell why a token is inactive says so of one that was never issued, too.
UNKNOWN = (Validity.NEVER_ISSUED, Validity.INACTIVE)


def never_issued() -> Secret:
    """Return a text that no store can know."""
    return Secret("".join(secrets.choice(_BASE62) for _ in range(_CONTROL_LENGTH)).encode())


def prove(store: TokenStore, found: Sequence[Secret]) -> Sequence[Lookup]:
    """Answer each secret; one that the store gives no answer for, while it answers for others, is
    `STORE_UNAVAILABLE`: nothing is known of it, and it must be asked about again.

    Raises `StoreUntrustedError` when the control token comes back known, or a known token without
    its record; `StoreUnavailableError` when the store does not answer for the control.
    """
    if not found:
        return []
    with question(store, "find"):
        return _prove(store, found)


@contextmanager
def question(store: TokenStore, operation: str) -> Iterator[None]:
    """Count a question to a store, and time it. `operation`: "find" or "revoke"."""
    outcome = "failed"
    try:
        with STORE_SECONDS.timed(store=store.name, operation=operation):
            yield
        outcome = "answered"
    except StoreUnavailableError:
        outcome = "unavailable"
        raise
    except StoreUntrustedError:
        outcome = "untrusted"
        raise
    finally:
        STORE_ANSWERS.add(store=store.name, operation=operation, outcome=outcome)


def _prove(store: TokenStore, found: Sequence[Secret]) -> Sequence[Lookup]:
    control = never_issued()
    position = secrets.randbelow(len(found) + 1)  # not to be told from the rest by its place
    answers = list(store.find([*found[:position], control, *found[position:]]))
    if len(answers) != len(found) + 1:
        raise StoreUntrustedError(f"The store {store.name} answered another number of tokens.")
    said = answers.pop(position)
    if said.validity is Validity.STORE_UNAVAILABLE:  # then nothing it says was tried
        raise StoreUnavailableError(f"The store {store.name} did not answer for its control.")
    if said.validity not in UNKNOWN or said.token is not None:
        raise StoreUntrustedError(f"The store {store.name} knows a token that was never issued.")
    if any(answer.validity in _KNOWN and answer.token is None for answer in answers):
        raise StoreUntrustedError(f"The store {store.name} knows a token, but not which.")
    return answers
