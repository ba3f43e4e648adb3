"""What is written by people is told from what chance draws; chance's own tokens are left alone."""

from __future__ import annotations

import math
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.matcher.pattern import Pattern
from scanner.matcher.placeholders import _BUDGET, _few, _most, compiled, filtered, is_placeholder
from scanner.patterns.generate import generate
from scanner.patterns.loader import load
from scanner.patterns.template import ALPHABETS

PATTERNS = load().patterns
UNVERIFIED = [p for p in PATTERNS if p.checksum is None or p.checksum_mode != "required"]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 36, "XXXX-XXXX-XXXX-XXXX", "xxxxxxxxxxxxxxxxxxxxxxxx1234", "0" * 32, "0123456789" * 4,
        "abcdefghijklmnopqrstuvwxyz0123456789", "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
        "zyxwvutsrqponmlkjihgfedcba98765432", "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8",
        "1234567890abcdef1234567890abcdef", "deadbeef" * 4, "abc123" * 6,
        "your_token_here_goes_in_here",
        "EXAMPLE" + "q7Wk" * 7, "QxEXAMPLEKEYr7Lw", "ThisIsNotARealTokenAtAll000000000000",
        "aaaabbbb" * 4,

        "qwertyuiopasdfghjklzxcvbnm", "replace-with-your-own-secret", "CHANGEMECHANGEMECHANGEME",
    ],
)  # fmt: skip
def test_what_people_write(text: str) -> None:
    assert is_placeholder(text.encode())


@pytest.mark.parametrize("name", [name for name in ALPHABETS if name != "check"])
def test_what_chance_draws_is_left_alone(name: str) -> None:
    rng = random.Random(name)
    taken = 0
    for _ in range(8_000):
        count = rng.choice((16, 20, 24, 32, 34, 36, 40, 43, 52, 64, 93, 200))
        taken += is_placeholder("".join(rng.choices(ALPHABETS[name], k=count)).encode())
    # One of these 96,000 (over all alphabets) would already be a hundred times too many.
    assert taken == 0


@pytest.mark.parametrize("pattern", UNVERIFIED, ids=lambda p: p.id)
def test_tokens_of_the_formats_are_left_alone(pattern: Pattern) -> None:
    rng = random.Random(pattern.id)
    own = compiled(pattern)
    assert not any(
        is_placeholder(token[pattern.mask_prefix : pattern.random_end or len(token)])
        for token in (generate(pattern, rng).reveal() for _ in range(300))
    )
    assert isinstance(own, tuple)


@given(
    length=st.integers(12, 2_000),
    size=st.sampled_from([10, 16, 26, 31]),
    ways=st.integers(1, 20),
)
def test_a_stretch_that_is_taken_is_rarer_than_the_budget(
    length: int, size: int, ways: int
) -> None:
    for free in (0, 1, 2):
        taken = _most(length, size, ways, free) + 1
        assert length * ways * size ** -(taken - free) <= _BUDGET * (1 + 1e-9)


@given(length=st.integers(12, 300), size=st.sampled_from([10, 16]))
def test_few_characters_are_rarer_than_the_budget(length: int, size: int) -> None:
    count = _few(length, size)
    # At most: the choices of `count` characters, and each place one of them.
    assert count == 0 or math.comb(size, count) * (count / size) ** length < _BUDGET
    assert count < size


@given(data=st.binary(max_size=300))
def test_it_takes_any_bytes(data: bytes) -> None:
    assert is_placeholder(data) in {True, False}


def test_the_prefix_and_what_follows_the_random_part_are_left_out() -> None:
    pattern = Pattern("x", "x", "x", "", "", 0, 0, mask_prefix=4, random_end=20)
    rng = random.Random(1)
    middle = "".join(rng.choices(ALPHABETS["base62"], k=16)).encode()
    assert not filtered(pattern, b"xxxx" + middle + b"A" * 40)
    assert filtered(pattern, middle[:4] + b"x" * 16 + middle)


def test_a_pattern_can_say_more() -> None:
    pattern = Pattern("x", "x", "x", "", "", 0, 0, placeholders=("sk-none",))
    value = b"sk-NONE-" + "".join(random.Random(2).choices(ALPHABETS["base62"], k=30)).encode()
    assert not filtered(pattern, value)
    assert filtered(pattern, value, compiled(pattern))
    assert all(isinstance(one, re.Pattern) for one in compiled(pattern))
