"""Of what the ledger knows, a sample is matched again: what is false is found in the end."""

from __future__ import annotations

from collections.abc import Sequence

from scanner.recall import SAMPLE, Recall

IDS = [f"{number:040x}" for number in range(20_000)]


class Knows:
    """A ledger that knows every file but the last."""

    def known(self, ruleset: str, object_ids: Sequence[str]) -> set[str]:
        assert ruleset == "r"
        return set(object_ids) - {IDS[-1]}

    def remember(self, *_: object) -> None:
        raise AssertionError

    publish = distrust = remember


def test_about_one_of_so_many_is_matched_again() -> None:
    recall = Recall(Knows(), "r")
    known = recall.known(IDS)
    doubted = set(IDS[:-1]) - known
    assert len(IDS) / SAMPLE / 2 < len(doubted) < len(IDS) / SAMPLE * 2
    assert recall.contradiction(doubted) is None
    assert recall.contradiction(doubted | {"other"}) is None
    (held_something, *rest) = sorted(doubted)
    assert recall.contradiction(rest) == held_something


def test_another_scan_doubts_others() -> None:
    asked = [Recall(Knows(), "r").known(IDS) for _ in range(2)]
    assert asked[0] != asked[1]


def test_everything_may_be_doubted() -> None:
    recall = Recall(Knows(), "r", sample=1)
    assert recall.known(IDS[:3]) == set()
    assert recall.contradiction(IDS[:2]) == IDS[2]
    assert recall.contradiction(IDS[:3]) is None


def test_of_what_nobody_knew_nothing_is_false() -> None:
    recall = Recall(Knows(), "r", sample=1)
    assert recall.known(IDS[-1:]) == set()
    assert recall.contradiction(()) is None
    assert Recall(Knows(), "r").contradiction(()) is None
