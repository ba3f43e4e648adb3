"""Lanes of scans, the most urgent first: a number in the row, a queue of its own in the broker.

Whoever works on a lane may take what is more urgent, never what is less: a history that takes
minutes then keeps nobody waiting who was told of a push.
"""

from __future__ import annotations

from enum import IntEnum


class Lane(IntEnum):
    """The `priority` of a scan."""

    REPORTS = 0  # somebody found a token and told us
    WEBHOOKS = 1  # a repository that we answer for was pushed to
    FEED = 2  # the world's public pushes
    HISTORY = 3  # scheduled scans, and whole histories
