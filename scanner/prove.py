"""Asking the store, with a control: a never-issued token rides in every batch (threat 12)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from scanner.errors import StoreUntrustedError
from scanner.model import Lookup, Secret, Validity
from scanner.ports import TokenStore

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CONTROL_LENGTH = 84
# A store that cannot tell why a token is inactive says so of one that was never issued, too.
_UNKNOWN = (Validity.NEVER_ISSUED, Validity.INACTIVE)


def prove(store: TokenStore, found: Sequence[Secret]) -> Sequence[Lookup]:
    """Answer each secret; raises `StoreUntrustedError` when the control token comes back known."""
    if not found:
        return []
    control = Secret("".join(secrets.choice(_BASE62) for _ in range(_CONTROL_LENGTH)).encode())
    position = secrets.randbelow(len(found) + 1)  # not to be told from the rest by its place
    answers = list(store.find([*found[:position], control, *found[position:]]))
    if len(answers) != len(found) + 1:
        raise StoreUntrustedError(f"The store {store.name} answered another number of tokens.")
    said = answers.pop(position)
    if said.validity not in _UNKNOWN or said.token is not None:
        raise StoreUntrustedError(f"The store {store.name} knows a token that was never issued.")
    return answers
