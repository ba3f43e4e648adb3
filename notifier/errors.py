"""One error: a notice was not delivered, for now or for good."""

from __future__ import annotations


class DeliveryError(Exception):
    """`permanent` says whether another try is pointless. The message never quotes the notice."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent
