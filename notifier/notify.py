"""The one way out: render a notice and hand it to a channel, once. Retrying is the caller's."""

from __future__ import annotations

from typing import Protocol

from notifier.notice import Notice
from notifier.render import Rendered, Renderer


class Channel(Protocol):
    """Where notices go. One file in `notifier/channels/` each."""

    def send(self, notice: Notice, mail: Rendered) -> None:
        """Deliver, or raise `DeliveryError` that says whether another try can help."""


def notify(notice: Notice, channel: Channel, renderer: Renderer) -> str:
    """Render and deliver `notice`; returns the subject that was sent. Raises `DeliveryError`."""
    mail = renderer.render(notice)
    channel.send(notice, mail)
    return mail.subject
