"""The matcher's spans are the reference's, on generated text of every kind."""

from __future__ import annotations

import mmap
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Pattern, Ruleset
from scanner.matcher.reference import spans
from scanner.matcher.shape import read_shape
from scanner.patterns.generate import generate
from scanner.patterns.loader import load


def small(name: str, regex: str, bounds: str = "a-z0-9") -> Pattern:
    shape = read_shape(regex)
    return Pattern(name, "test", name, regex, bounds, shape.min_width, shape.max_width, own=True)


# Narrow alphabets make matches, near-misses and overlaps likely in short generated text.
RULES = Ruleset(
    (
        small("fixed", "ab[ab]{3}"),
        small("optional-tail", "[ab]{4}(?:c==)?", "abc"),
        small("alternatives", "a|ab|abc|b{2,6}"),
        small("lazy", "a[bc]{1,5}?c"),
        small("run", "[ab]{6}", "ab"),
        small("unbounded-sides", "a[ab]{2,4}", ""),
        small("any-byte", "a.{2}b"),
        small("case", "(?i:abc)[^b]", "z"),
        small("brace", "a{,3}b"),
        small("high", r"\xff[\x00-\x10]{1,3}", r"\xfe"),
    )
)
PIECES = [
    b"a",
    b"b",
    b"ab",
    b"abab",
    b"abaab",
    b"c",
    b"C",
    b"c==",
    b"=",
    b" ",
    b"\n",
    b"z",
    b"{,3}",
]
PIECES += [b"\xff\x00", b"\xff\x01\x02", b"\xfe", b"aaaaaa", b"B"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join)


def found(matcher: Matcher, data: bytes | memoryview) -> dict[str, list[tuple[int, int]]]:
    result: dict[str, list[tuple[int, int]]] = {p.id: [] for p in matcher.ruleset.patterns}
    for candidate in matcher.scan(data):
        result[candidate.pattern].append((candidate.start, candidate.end))
    return result


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return Matcher(RULES)


@pytest.fixture(scope="module")
def sliced() -> Matcher:
    return Matcher(RULES, slice_bytes=7)


@settings(max_examples=400, deadline=None)
@given(data=TEXTS)
def test_spans_equal_the_reference(matcher: Matcher, data: bytes) -> None:
    assert found(matcher, data) == {p.id: spans(p, data) for p in RULES.patterns}


@settings(max_examples=300, deadline=None)
@given(data=TEXTS)
def test_slicing_changes_nothing(sliced: Matcher, data: bytes) -> None:
    assert found(sliced, data) == {p.id: spans(p, data) for p in RULES.patterns}


@settings(max_examples=100, deadline=None)
@given(data=TEXTS, cut=st.tuples(st.integers(0, 30), st.integers(0, 30)))
def test_a_view_is_scanned_as_its_bytes(
    matcher: Matcher, data: bytes, cut: tuple[int, int]
) -> None:
    view = memoryview(data)[cut[0] : max(0, len(data) - cut[1])]
    assert found(matcher, view) == {p.id: spans(p, bytes(view)) for p in RULES.patterns}


ALL = load()
EVERY = Matcher(ALL, bound=frozenset(pattern.id for pattern in ALL.patterns))
BETWEEN = st.sampled_from(
    [b"", b"", b" ", b"\n", b"_", b"x", b"=", b"==", b"-", b"\xc3\xa9", b"A7=="]
)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), between=st.lists(BETWEEN, min_size=1, max_size=8))
def test_real_patterns_equal_the_reference(seed: int, between: list[bytes]) -> None:
    rng = random.Random(seed)
    parts = []
    for gap in between:
        token = generate(rng.choice(ALL.patterns), rng).reveal()
        parts += [gap, token if rng.random() < 0.8 else token[: rng.randrange(len(token))]]
    data = b"".join(parts)
    found_now = found(EVERY, data)
    for pattern in ALL.patterns:
        expected = spans(pattern, data)
        if pattern.checksum_mode == "required":
            # The gate drops what has no right checksum; no generated one is lost.
            assert set(found_now[pattern.id]) <= set(expected)
        else:
            assert found_now[pattern.id] == expected


def test_a_gated_token_is_found_between_others() -> None:
    legacy = next(p for p in ALL.patterns if p.id == "azure-devops-pat-legacy")
    token = generate(legacy, random.Random(5)).reveal()
    data = b"aaaa " + token + b"\n" + token + b"Z"
    assert found(EVERY, data)[legacy.id] == [(5, 57), (58, 110)]


def test_edges_of_the_buffer(matcher: Matcher) -> None:
    assert found(matcher, b"")["fixed"] == []
    assert found(matcher, b"abaaa")["fixed"] == [(0, 5)]
    assert found(matcher, b"-abaaa")["fixed"] == [(1, 6)]
    assert found(matcher, b"abaaa-abbbb")["fixed"] == [(0, 5), (6, 11)]


def test_a_seam_of_slices_neither_loses_nor_doubles() -> None:
    pattern = next(p for p in ALL.patterns if p.id == "azure-devops-pat")
    token = generate(pattern, random.Random(2)).reveal()
    data = b"".join(b"." * gap + token for gap in range(1, 40))
    for size in (1, 83, 84, 85, 200):
        matcher = Matcher(Ruleset((pattern,)), slice_bytes=size)
        assert found(matcher, data)[pattern.id] == spans(pattern, data)
        assert len(spans(pattern, data)) == 39


def test_the_long_form_is_one_finding() -> None:
    pattern = next(p for p in ALL.patterns if p.id == "azure-devops-pat")
    token = generate(pattern, random.Random(3)).reveal()
    longer = found(EVERY, b'"' + token + b'Zz==" ')
    assert longer == {p.id: [(1, 89)] if p is pattern else [] for p in ALL.patterns}
    assert found(EVERY, b'"' + token + b'" ')[pattern.id] == [(1, 85)]
    # Two characters without "==" make it another word.
    assert found(EVERY, b'"' + token + b'Zz=" ')[pattern.id] == []


def test_mapped_files_and_bytearrays(tmp_path: Path) -> None:
    token = generate("npm-access-token", random.Random(4)).reveal()
    data = b"key = " + token + b"\n"
    file = tmp_path / "mapped"
    file.write_bytes(data)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as view:
        (mapped,) = EVERY.scan(view)
    buffer = bytearray(data)
    (plain,) = EVERY.scan(buffer)
    buffer.clear()  # nothing pins the buffer
    assert mapped == plain
    assert plain.secret.reveal() == token


def test_order_is_by_start_then_pattern() -> None:
    twin = [small("b", "aa"), small("a", "aa"), small("c", "aa[!]bb")]
    result = Matcher(Ruleset(tuple(twin))).scan(b"aa!bb aa")
    assert [(c.start, c.pattern) for c in result] == [
        (0, "a"), (0, "b"), (0, "c"), (6, "a"), (6, "b"),
    ]  # fmt: skip


def test_no_patterns_find_nothing() -> None:
    assert Matcher(Ruleset(())).scan(b"abc") == []


def test_the_digest_names_what_is_looked_for() -> None:
    one = Matcher(Ruleset((RULES.patterns[0],)))
    other = Matcher(Ruleset((replace(RULES.patterns[0], bounds="a"),)))
    bound = Matcher(one.ruleset, bound=frozenset({"fixed"}))
    elsewhere = Matcher(one.ruleset, bound=frozenset({"not-here"}))
    assert len({one.digest, other.digest, bound.digest}) == 3
    assert elsewhere.digest == one.digest
