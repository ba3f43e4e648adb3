"""Checksum gate and score, placeholder filter, mask and redaction."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.matcher.engine import Matcher
from scanner.matcher.mask import mask
from scanner.matcher.pattern import Pattern, Ruleset
from scanner.model import Checksum
from scanner.patterns.generate import generate
from scanner.patterns.loader import load

RULES = load()
MATCHER = Matcher(RULES)
BY_ID = {pattern.id: pattern for pattern in RULES.patterns}


def token(name: str, seed: int = 1) -> bytes:
    return generate(BY_ID[name], random.Random(seed)).reveal()


def swapped(raw: bytes, index: int) -> bytes:
    """Change one character into another of every alphabet used here."""
    other = b"a" if raw[index : index + 1] != b"a" else b"b"
    return raw[:index] + other + raw[index + 1 :]


def test_a_score_is_recorded() -> None:
    raw = token("github-pat")
    (right,) = MATCHER.scan(raw)
    (wrong,) = MATCHER.scan(swapped(raw, 10))
    assert (right.checksum, wrong.checksum) == (Checksum.VALID, Checksum.INVALID)
    (none,) = MATCHER.scan(token("github-fine-grained-pat"))
    assert none.checksum is Checksum.ABSENT
    assert (right.issuer, right.encoding) == ("github", "plain")


def test_a_gate_drops() -> None:
    raw = token("azure-devops-pat-legacy")
    (right,) = MATCHER.scan(raw)
    assert right.checksum is Checksum.VALID
    assert MATCHER.scan(swapped(raw, 20)) == []


PLACEHOLDERS = ["ghp_" + "x" * 36, "ghp_" + "EXAMPLE" + "q7W" * 9 + "ab", "npm_" + "0123456789" * 4]


@pytest.mark.parametrize("text", [p[:40] for p in PLACEHOLDERS])
def test_placeholders_are_filtered_unless_a_store_answers(text: str) -> None:
    raw = text.encode()
    assert MATCHER.scan(raw) == []
    bound = Matcher(RULES, bound=frozenset({"github-pat", "npm-access-token"}))
    assert len(bound.scan(raw)) == 1
    own = Matcher(Ruleset(tuple(replace(p, own=True) for p in RULES.patterns)))
    assert len(own.scan(raw)) == 1


def test_a_right_checksum_is_no_placeholder() -> None:
    pattern = replace(BY_ID["github-pat"], generate="ghp_" + "x" * 30 + "{check:6}")
    raw = generate(pattern, random.Random(1)).reveal()
    (found,) = MATCHER.scan(raw)
    assert found.checksum is Checksum.VALID


def test_every_placeholder_of_a_list_has_its_own_groups() -> None:
    pattern = replace(BY_ID["github-fine-grained-pat"], placeholders=(r"(q)\1{3}", r"(z)\1{3}"))
    matcher = Matcher(Ruleset((pattern,)))
    raw = token("github-fine-grained-pat")
    assert len(matcher.scan(raw)) == 1
    assert matcher.scan(raw[:40] + b"zzzz" + raw[44:]) == []
    assert matcher.scan(raw[:40] + b"qqqq" + raw[44:]) == []


def test_azure_platform_bytes_are_no_placeholder() -> None:
    raw = token("azure-devops-pat")
    # Real tokens have long runs of A here, and the checksum is only a score.
    real = raw[:60] + b"A" * 16 + raw[76:80] + (b"aaaa" if raw[80:84] != b"aaaa" else b"bbbb")
    (found,) = MATCHER.scan(real)
    assert found.checksum is Checksum.INVALID
    assert MATCHER.scan(b"A" * 20 + real[20:]) == []


@pytest.mark.parametrize("pattern", RULES.patterns, ids=lambda p: p.id)
def test_a_mask_shows_the_prefix_and_at_most_an_eighth(pattern: Pattern) -> None:
    raw = generate(pattern, random.Random(3)).reveal()
    shown = mask(pattern, raw)
    head, tail = shown.split("…")
    assert head == raw[: pattern.mask_prefix].decode()
    random_part = len(raw) - pattern.mask_prefix
    assert len(tail) == min(4, random_part // 8)
    assert raw.decode().endswith(tail)


def test_a_short_token_shows_less() -> None:
    pattern = replace(BY_ID["github-pat"], mask_prefix=4)
    assert mask(pattern, b"ghp_" + b"q" * 16) == "ghp_…qq"
    assert mask(pattern, b"ghp_" + b"q" * 7) == "ghp_…"


def test_redaction_hides_every_candidate() -> None:
    first, second = token("github-pat").decode(), token("npm-access-token").decode()
    text = f"é {first}\udcff{second}…"
    (one, two) = MATCHER.scan(text.encode("utf-8", "surrogateescape"))
    assert MATCHER.redact(text) == f"é {one.mask}\udcff{two.mask}…"
    assert first not in MATCHER.redact(text)


def own(name: str, regex: str) -> Pattern:
    return Pattern(name, "test", name, regex, "A-Z", 9, 9, own=True)


def test_redaction_of_overlapping_candidates_leaves_nothing() -> None:
    rules = Ruleset((own("one", "[a-z]{4}-[a-z]{4}"), own("two", "[a-z]{4}=[a-z]{4}")))
    # Nine bytes show one: the first mask stands, and the second's bytes are gone with it.
    assert Matcher(rules).redact("<abcd-efgh=ijkl>") == "<…h>"


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80))
def test_redaction_returns_other_text_as_it_was(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    assert MATCHER.redact(text) == text


def test_redaction_takes_any_string() -> None:
    raw = token("github-pat").decode()
    assert raw not in MATCHER.redact(f"\ud800 {raw}")


def test_nothing_shows_the_token() -> None:
    raw = token("github-pat").decode()
    assert raw not in repr(MATCHER.scan(raw.encode()))
