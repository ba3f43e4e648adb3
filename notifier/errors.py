"""What a channel raises when a notice did not go out."""

from __future__ import annotations


class DeliveryError(Exception):
    """A notice was not delivered.

    `permanent` says that no later attempt with the same notice can succeed. The message is written
    for a log line: it holds a reason and a status code, never the mail's content, the server's
    words (they may quote the mail) or a credential.
    """

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent
