"""What `re` would read in exponentially many ways is told, and nothing else."""

from __future__ import annotations

import re
import time

import pytest

from scanner.matcher.ambiguity import is_ambiguous
from scanner.matcher.shape import read_shape
from scanner.patterns.loader import load


@pytest.mark.parametrize(
    "regex",
    [
        "acme_(?:[a-z0-9]{1,50}-?){3,8}=[A-Z]{4}",
        "(?:a{1,9}){2}b",
        "x(?:(?:ab?){1,3}){2,9}y",
        "(?:[a-z]{2,5}|[a-z]{3}-?){4}!",
        "(?:a(?:bc?|[bc]{1,2}){1,4}){2}",
    ],
)
def test_ambiguous(regex: str) -> None:
    assert is_ambiguous(read_shape(regex).nodes)


@pytest.mark.parametrize(
    "regex",
    ["ghp_[A-Za-z0-9]{36}", "(?:[a-z]{1,9}-){3,8}x", "(?:-?[a-z]){64,8000}", "(?:ab|cd){5,6}"],
)
def test_told_apart(regex: str) -> None:
    assert not is_ambiguous(read_shape(regex).nodes)


def test_what_is_told_is_slow_and_what_is_not_is_quick() -> None:
    text = b"a" * 26 + b"!"

    def seconds(regex: str) -> float:
        began = time.thread_time()
        re.compile(regex.encode()).search(text)
        return time.thread_time() - began

    assert seconds("(?:[a-z]{1,50}-?){3,8}=") > 20 * seconds("(?:[a-z]{1,50}-){3,8}=")


def test_no_built_in_pattern_is() -> None:
    assert [p.id for p in load().patterns if is_ambiguous(read_shape(p.regex).nodes)] == []
