"""The matcher finds exactly what the reference finds."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.matcher.engine import Matcher
from scanner.matcher.reference import spans
from scanner.model import Checksum
from scanner.patterns.generate import generate
from scanner.patterns.loader import check_examples, load

RULESET = load()
MATCHER = Matcher(RULESET)
TOKENS = [generate(p, random.Random(7)).reveal() for p in RULESET.patterns]


def test_every_pattern_matches_its_examples_and_no_near_miss() -> None:
    assert check_examples(RULESET) == []


@pytest.mark.parametrize("pattern", RULESET.patterns, ids=lambda p: p.id)
def test_a_generated_token_is_found_with_its_checksum(pattern) -> None:
    token = generate(pattern).reveal()
    (found,) = [c for c in MATCHER.scan(b"key='" + token + b"'") if c.pattern == pattern.id]
    assert (found.start, found.end) == (5, 5 + len(token))
    assert found.secret.reveal() == token
    assert found.checksum is (Checksum.VALID if pattern.checksum else Checksum.ABSENT)
    assert token.decode() not in repr(found)


pieces = st.one_of(
    st.sampled_from(TOKENS),
    st.sampled_from([t[:-1] for t in TOKENS] + [t[1:] for t in TOKENS]),
    st.binary(max_size=6),
    st.sampled_from([b"", b"\n", b"=", b"==", b"AZDO", b"ghp_", b"a" * 52]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=12).map(b"".join))
def test_spans_are_those_of_the_reference(data: bytes) -> None:
    found = MATCHER.scan(data)
    for pattern in RULESET.patterns:
        wanted = spans(pattern, data)
        got = [(c.start, c.end) for c in found if c.pattern == pattern.id]
        if pattern.checksum_mode == "required" or pattern.placeholders:
            assert set(got) <= set(wanted)
        else:
            assert got == wanted


def test_a_dense_file_takes_linear_time() -> None:
    token = TOKENS[2]
    data = b"\n".join([token] * 5_332)
    began = time.monotonic()
    assert len(MATCHER.scan(data)) == 5_332
    assert time.monotonic() - began < 2


def test_redact_masks_every_token_and_nothing_else() -> None:
    text = f"refs/heads/{TOKENS[0].decode()}/x"
    shown = MATCHER.redact(text)
    assert TOKENS[0].decode() not in shown
    assert shown.startswith("refs/heads/…")
    assert shown.endswith("/x")
    assert MATCHER.redact("refs/heads/main") == "refs/heads/main"
