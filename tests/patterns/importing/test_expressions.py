"""Expressions of other dialects, read and written anew: the same bytes match, or none is made."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.matcher.shape import read_shape
from scanner.patterns.importing.edges import secret_of
from scanner.patterns.importing.syntax import Dialect, RefusedError, parse
from scanner.patterns.importing.tree import (
    EVERY,
    Bytes,
    Choice,
    Node,
    Repeat,
    Sequence,
    begins,
    class_body,
    spellings,
    width,
    write,
)

GO, RUST = Dialect.GO, Dialect.RUST


@pytest.mark.parametrize(
    ("text", "dialect", "expected"),
    [
        ("abc", GO, "abc"),
        (r"a\-b\/c", GO, r"a\-b\/c"),
        ("a(?i)b|c", GO, "a[Bb]|[Cc]"),  # the flag holds in what follows, to the group's end
        ("(a(?i)b)c", GO, "(?:a[Bb])c"),
        ("(?i)(?-i:A)b", GO, "A[Bb]"),
        ("(?i)ab_1", RUST, "(?i:ab_1)"),
        ("(?x) a b # c\n [d e] (?# f )", RUST, "ab[de]"),
        ("(?x) [#] a", GO, r"\#a"),
        ("[[:alnum:]_]{3}", GO, "[0-9A-Z_a-z]{3}"),
        ("[^[:^digit:]]", GO, "[0-9]"),
        ("[]a]", GO, r"[\]a]"),
        ("[a-]", GO, r"[\-a]"),
        ("[[a-c]x]", RUST, "[a-cx]"),
        ("[[a]", GO, r"[\[a]"),
        (r"\d\x41\x{42}\t", RUST, r"[0-9]AB\x09"),
        ("a{2,3}?b{0,1}c{4}", GO, "a{2,3}?b?c{4}"),
        ("a{,3}", GO, r"a\{\,3\}"),  # no repeat there
        ("(?P<x>ab)(?<y>c)", RUST, "(?:ab)(?:c)"),
        ("(?s).", GO, r"[\x00-\xff]"),
        (".", GO, r"[^\x0a]"),
        ("é", GO, r"\xc3\xa9"),
        ("a(?:b|c)d", GO, "a(?:b|c)d"),
    ],
)
def test_it_is_written_anew(text: str, dialect: Dialect, expected: str) -> None:
    assert write(parse(text, dialect)) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(?=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        (r"(a)\1", "back-references"),
        ("a++", "possessive"),
        (r"\p{L}", r"escape \\p"),
        (r"\Qa\E", r"escape \\Q"),
        ("[a&&b]", "operations"),
        ("[é]", "not ASCII"),
        (r"\x{1F600}", "not ASCII"),
        ("(?U)a*", "flag U"),
        ("(?>a)", "kind of group"),
        ("(a", "does not close"),
        ("a)", "does not open"),
        ("[a", "no end"),
        ("[b-a]", "is none"),
        ("*a", "repeats nothing"),
        ("a{2,1}", "too often"),
        ("a{99999}", "too often"),
        ("(" * 200 + ")" * 200, "too deeply"),
        ("(?#", "no end"),
        ("a" * 30_000, "too long"),
        ("[[:nope:]]", "class"),
        ("\\", "escape"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        parse(text, RUST)


@pytest.mark.parametrize(
    ("text", "regex", "before", "after"),
    [
        (r"\b(ab_[0-9]{4})\b", "ab_[0-9]{4}", "0-9A-Z_a-z", "0-9A-Z_a-z"),
        ("ab[0-9]{4}", "ab[0-9]{4}", None, None),
        (r"\b(ab[0-9])(?:['\"\s;]|\\[nr]|$)", "ab[0-9]", "0-9A-Z_a-z",
         r"^\x09-\x0d \"'\;\\".replace("\\\"'", "\\\"\\'")),
        ("(?:^|['\"])(ab)", "ab", "^\\\"\\'", None),
        ("['\"]?(ab)['\"]?", "ab", None, None),
        (r"(?:key)?\b(ab)", "ab", "0-9A-Z_a-z", None),
        ("(?m)^(ab)$", "ab", r"^\x0a", r"^\x0a"),
        ("^ab$", "ab", r"\x00-\xff", r"\x00-\xff"),
        ("(?: [^A-Z] | ^ )(ab)", None, None, None),
        (r"(-[a-z]{3}-)\b", r"\-[a-z]{3}\-", None, "^0-9A-Z_a-z"),
        ("ab[0-9](?:[^0-9]|$)", "ab[0-9]", None, "0-9"),
    ],
)  # fmt: skip
def test_what_stands_around_becomes_bounds(
    text: str, regex: str | None, before: str | None, after: str | None
) -> None:
    text = text if regex else f"(?x){text}"
    tree = parse(text, RUST)
    secret = secret_of(tree, 1 if "(a" in text or "(-" in text else None)
    assert write(secret.node) == (regex or "ab")
    sides = [
        None if one == EVERY else class_body(EVERY - one) for one in (secret.before, secret.after)
    ]
    assert sides == ([before, after] if regex else ["A-Z", None])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("acme.{0,40}([a-f0-9]{32})", "before it"),
        ("([a-f0-9]{32}) *; *acme", "after it"),
        (r"acme\s*['\"]?(ab)", "before it"),
        ("(?:(ab)|x(c))", "alternatives"),
        (r"(a\bc)", r"\\b inside"),
        (r"(\bab\b|cd)", "edges of its own"),
        ("(a?)", "empty"),
        (r"\B(ab)", "beside"),
    ],
)
def test_context_is_refused(text: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        secret_of(parse(text, GO), 1)


SETS = st.frozensets(st.integers(0, 255), min_size=1, max_size=40)


def trees() -> st.SearchStrategy[Node]:
    leaves = st.builds(Bytes, SETS) | st.sampled_from([Bytes(frozenset(b"aA")), Bytes(EVERY)])
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda items: Sequence(tuple(items)))
            | st.lists(inner, min_size=1, max_size=3).map(lambda items: Choice(tuple(items)))
            | st.builds(Repeat, inner, st.integers(0, 2), st.integers(2, 3), st.booleans())
        ),
        max_leaves=6,
    )


def matches(node: Node, data: bytes) -> frozenset[int]:
    """The reference: every length of a match at the start of `data`, by definition."""
    match node:
        case Bytes(members):
            return frozenset((1,)) if data and data[0] in members else frozenset()
        case Sequence(items):
            ends = frozenset((0,))
            for item in items:
                ends = frozenset(end + more for end in ends for more in matches(item, data[end:]))
            return ends
        case Choice(branches):
            return frozenset().union(*(matches(branch, data) for branch in branches))
        case Repeat(inner, low, high):
            assert high is not None
            return frozenset().union(
                *(matches(Sequence((inner,) * n), data) for n in range(low, high + 1))
            )
    raise AssertionError(node)


@given(trees(), st.binary(max_size=8) | st.text("aAbB1", max_size=8).map(str.encode))
def test_what_is_written_matches_what_the_tree_does(node: Node, data: bytes) -> None:
    written = write(node)
    ends = matches(node, data)
    for end in range(len(data) + 1):
        found = re.fullmatch(written.encode(), data[:end])
        assert (found is not None) == (end in matches(node, data[:end])), written
    low, high = width(node)
    assert all(low <= end and (high is None or end <= high) for end in ends)
    assert all(data[0] in begins(node) for end in ends if end)
    assert all(data[end - 1] in begins(node, last=True) for end in ends if end)
    known = spellings(node)
    for end in ends if known is not None else ():
        text = data[:end].lower().decode("latin-1")
        assert any(
            re.fullmatch(re.escape(one).replace("\\\0", "(?s:.)*").replace("\0", "(?s:.)*"), text)
            for one in known or ()
        )
    if low:
        read_shape(written)  # the matcher takes it


@given(st.text(string.printable, max_size=30), st.sampled_from(Dialect))
def test_no_text_breaks_the_parser(text: str, dialect: Dialect) -> None:
    try:
        node = parse(text, dialect)
    except RefusedError:
        return
    re.compile(write(node).encode())
