"""Send one notice through one channel."""

from __future__ import annotations

from typing import Protocol

from notifier.notice import Notice
from notifier.render import Rendered, Renderer


class Channel(Protocol):
    """A way out. Errors: `DeliveryError`."""

    def send(self, notice: Notice, rendered: Rendered) -> None:
        """Try once."""
        ...


def notify(notice: Notice, channel: Channel, renderer: Renderer) -> str:
    """Render and send; returns the subject it was sent under."""
    rendered = renderer.render(notice)
    channel.send(notice, rendered)
    return rendered.subject
