"""Which heads a later fetch may build on, by what the scan left out."""

from __future__ import annotations

import pytest

from scanner.archives.bounds import REASONS
from scanner.db.leases import Claim
from scanner.model import Inspection
from scanner.scan.reading import Reading
from scanner.scan.verdict import Verdict


@pytest.mark.parametrize(
    ("partial", "is_complete"),
    [
        ((), True),
        (("orphaned-commits-gone: 1",), True),
        (tuple(f"{reason}: 3" for reason in REASONS), True),
        (("archive-damaged: 1", "too-many-candidates: 3"), False),
        (("archives-too-large: 1",), False),  # of another pack they may be read
        (("object-too-large: 1",), False),
        (("history-too-large: 1",), False),
    ],
)
def test_what_reading_again_would_not_tell_holds_no_head_back(
    partial: tuple[str, ...], is_complete: bool
) -> None:
    reading = Reading(Inspection(partial=partial), 0, 0, 0)
    verdict = Verdict(Claim("a", 1, 1, 0, {}), "acme/app", reading, ("h" * 40,), 0.0)
    assert verdict.complete_heads == (("h" * 40,) if is_complete else ())
