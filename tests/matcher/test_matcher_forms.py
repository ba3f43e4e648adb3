"""Tokens in UTF-16, in base64, escaped and put together: each is found where it stands."""

from __future__ import annotations

import base64
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Pattern, Ruleset
from scanner.matcher.reference import spans
from scanner.matcher.shape import read_shape
from tests.matcher.embeddings import ENCODED


def small(name: str, regex: str, bounds: str = "a-z0-9") -> Pattern:
    shape = read_shape(regex)
    return Pattern(name, "test", name, regex, bounds, shape.min_width, shape.max_width, own=True)


# A token of fewer than twelve bytes is no sixteen characters of base64: it is taken for a word.
RULES = Ruleset(
    (
        small("fixed", "tok_[ab]{8}"),
        small("open", "key-[a-z]{8,16}", "A-Za-z0-9"),
        small("middle", "[xy]{6}MARK[xy]{2}", "xy"),
        small("slashes", "hook/[a-c]{4}/[a-c]{4}", "a-z"),
        small("two", "(?:abcd|efgh)[0-9]{8}"),
        small("bare", "[pq]{7}", "pq"),  # without an anchor
    )
)
TOKENS = [b"tok_abaabaab", b"tok_bbbbbbbb", b"key-abcdefgh", b"key-abcdefghijklmnop"]
TOKENS += [b"xyxyxyMARKyy", b"hook/abca/caba", b"abcd01234567", b"efgh99999999"]
PIECES = [
    *TOKENS,
    b"tok_",
    b"a",
    b"b",
    b" ",
    b"\n",
    b"key-",
    b"x",
    b"-",
    b"_",
    b"MARK",
    b"",
    b"yyy",
]
PIECES += [b"abab", b"key-key-key-"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)
MATCHER = Matcher(RULES)
SLICED = Matcher(RULES, slice_bytes=11)
Found = set[tuple[str, int, int, bytes]]


def found(matcher: Matcher, data: bytes, encoding: str) -> Found:
    return {
        (one.pattern, one.start, one.end, one.secret.reveal())
        for one in matcher.scan(data)
        if one.encoding == encoding
    }


def expected(text: bytes) -> list[tuple[str, int, int, bytes]]:
    return [
        (rule.id, start, end, text[start:end])
        for rule in RULES.patterns[:-1]
        for start, end in spans(rule, text)
    ]


@settings(max_examples=200, deadline=None)
@given(
    text=TEXTS,
    order=st.sampled_from(["utf-16-le", "utf-16-be"]),
    gap=st.sampled_from([b"", b"\n\0"]),
)
def test_utf_16_is_read_as_its_text(text: bytes, order: str, gap: bytes) -> None:
    data = gap + text.decode().encode(order)
    wanted = {
        (rule, len(gap) + 2 * start, len(gap) + 2 * end, token)
        for rule, start, end, token in expected(text)
    }
    assert found(MATCHER, data, "utf-16") == wanted
    assert found(SLICED, data, "utf-16") == wanted


def in_base64(data: bytes) -> Found:
    """By hand: every run of base64, cut into groups in each of four ways."""
    wanted: Found = set()
    for run in re.finditer(rb"[A-Za-z0-9+/]+", data):
        for cut in range(4):
            characters = run.group()[cut:]
            characters = characters[: len(characters) - (len(characters) % 4 == 1)]
            text = base64.b64decode(characters + b"=" * (-len(characters) % 4))
            for rule, start, end, token in expected(text):
                first = run.start() + cut + 4 * start // 3
                wanted.add((rule, first, run.start() + cut + (4 * end - 1) // 3 + 1, token))
    return wanted


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(
        st.tuples(TEXTS, st.sampled_from([b" ", b'"', b"=", b"==:", b"", b"A", b"/"])), max_size=4
    )
)
def test_base64_is_read_in_each_of_its_cuts(parts: list[tuple[bytes, bytes]]) -> None:
    data = b"".join(base64.b64encode(text).rstrip(b"=") + gap for text, gap in parts)
    assert found(MATCHER, data, "base64") == in_base64(data)
    assert found(SLICED, data, "base64") == in_base64(data)


@settings(max_examples=300, deadline=None)
@given(
    before=TEXTS,
    after=TEXTS,
    token=st.sampled_from(TOKENS),
    width=st.integers(16, 80),
    separator=st.sampled_from(
        [b"\n", b"\r\n", b"\n    ", b"\\n", b"\\r\\n", b'"\n    "', b'" +\n"']
    ),
)
def test_base64_in_lines_loses_nothing(
    before: bytes, after: bytes, token: bytes, width: int, separator: bytes
) -> None:
    text = before + b" " + token + b" " + after
    encoded = base64.b64encode(text)
    lines = [encoded[at : at + width] for at in range(0, len(encoded), width)]
    data = b'v: "' + separator.join(lines) + b'"\n'
    for matcher in (MATCHER, SLICED):
        secrets = {(rule, secret) for rule, _, _, secret in found(matcher, data, "base64")}
        wanted = {(rule, secret) for rule, _, _, secret in expected(text)}
        if separator.startswith(b'"'):
            # A string's seam inside the anchor itself is not looked for; the rest is.
            wanted = {one for one in wanted if not _is_cut(text, one[1], width)}
        assert secrets >= wanted


def _is_cut(text: bytes, token: bytes, width: int) -> bool:
    """Whether any of its places may have an end of line in it."""
    at = text.find(token)
    while at >= 0:
        if (at * 4 // 3 - 2) // width != ((at + len(token)) * 4 // 3 + 2) // width:
            return True
        at = text.find(token, at + 1)
    return False


def escape(text: bytes, how: str, rng: random.Random) -> bytes:
    """Escape any bytes but those that need not be; where a token lies is told by its value."""
    written = []
    for byte in text:
        sign = bytes((byte,))
        if sign.isalnum() or sign in b"-_" or (sign == b"/" and rng.random() < 0.5):
            written.append(sign)
        elif how == "url":
            written.append(b"%%%02X" % byte)
        else:
            written.append({b"\n": b"\\n", b"/": b"\\/"}.get(sign, b"\\u%04x" % byte))
    return b"".join(written)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, how=st.sampled_from(["url", "json"]), seed=st.integers(0, 1 << 32))
def test_escapes_are_undone(text: bytes, how: str, seed: int) -> None:
    data = escape(text, how, random.Random(seed))
    for matcher in (MATCHER, SLICED):
        candidates = matcher.scan(data)
        assert {(one.pattern, one.secret.reveal()) for one in candidates} >= {
            (rule, secret) for rule, _, _, secret in expected(text)
        }
        spans_found = [(one.pattern, one.start, one.end) for one in candidates]
        assert len(set(spans_found)) == len(spans_found)
        for one in candidates:
            written = data[one.start : one.end]
            assert one.encoding in ("plain", how)
            assert escape(one.secret.reveal(), how, random.Random(0)).replace(b"\\/", b"/").replace(
                b"%2F", b"/"
            ) == written.replace(b"\\/", b"/").replace(b"%2F", b"/")


@pytest.mark.parametrize(("name", "encoding"), [(name, e) for name, (e, _) in ENCODED.items()])
def test_the_span_is_where_it_is_written(name: str, encoding: str) -> None:
    token = b"key-abcdefghijklmnop"
    data = ENCODED[name][1](token)
    (one,) = [one for one in MATCHER.scan(data) if one.secret.reveal() == token]
    assert (one.pattern, one.encoding) == ("open", encoding)
    assert 0 <= one.start < one.end <= len(data)
    if encoding == "utf-16":
        assert data[one.start : one.end] in (
            token.decode().encode("utf-16-le"), token.decode().encode("utf-16-be")
        )  # fmt: skip
    if encoding == "base64":
        written = re.sub(rb"[\s\\rn]*[\r\n\\][\s\\rn]*|\\n", b"", data[one.start : one.end])
        assert len(written) in range(len(token) * 4 // 3, len(token) * 4 // 3 + 3)


def test_text_with_encoded_tokens_is_redacted() -> None:
    encoded = base64.b64encode(b"user:tok_abaabaab").decode()
    shown = MATCHER.redact(f"see {encoded} and a%0Atok_bbbbbbbb")
    assert encoded not in shown
    assert "tok_bbbbbbbb" not in shown
    assert shown.startswith("see dXNlcj")  # what stands before the token stays


def test_a_repeated_anchor_takes_time_in_proportion() -> None:
    import time

    def seconds(data: bytes) -> float:
        times = []
        for _ in range(3):
            begin = time.thread_time()
            MATCHER.scan(data)
            times.append(time.thread_time() - begin)
        return min(times)

    for unit in (
        base64.b64encode(b"tok_abababa "), base64.b64encode(b"key-abcdefgh."), b"tok_abab%2",
        "tok_abaabaab".encode("utf-16-le"), base64.b64encode(b"key-") + b"\n",
        b"A" * 20 + base64.b64encode(b"tok_abaabaab.") + b"\n",
    ):  # fmt: skip
        short, long = unit * (40_000 // len(unit)), unit * (320_000 // len(unit))
        assert seconds(long) < 24 * seconds(short)  # eight times the bytes; quadratic: 64 times
