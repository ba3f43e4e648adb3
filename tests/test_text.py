"""Text from outside: whatever it holds, what is shown deceives no reader and moves no cursor."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.text import printable

ANYTHING = st.text(st.characters(codec=None, categories=None))
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@settings(derandomize=True, database=None, max_examples=300)
@given(ANYTHING, st.integers(1, 40))
def test_nothing_hidden_is_left_and_the_limit_holds(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert {unicodedata.category(character) for character in shown}.isdisjoint(HIDDEN)
    assert len(shown) <= limit
    shown.encode()  # it can be written to any terminal or file that speaks UTF-8


@settings(derandomize=True, database=None, max_examples=100)
@given(st.text(st.characters(exclude_categories=sorted(HIDDEN)), max_size=50))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert printable(text, 50) == text


def test_every_character_there_is() -> None:
    hidden: list[str] = []
    plain: list[str] = []
    for character in map(chr, range(sys.maxunicode + 1)):
        (hidden if unicodedata.category(character) in HIDDEN else plain).append(character)
    text = "".join(plain)
    assert printable(text, len(text)) == text
    for character in (*hidden[:2_000], *hidden[::97]):
        shown = printable(character)
        assert shown.isascii()
        assert shown.isprintable()
        assert shown.startswith("\\")
        assert shown.encode().decode("unicode_escape") == character


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("one\r\ntwo\tthree", "one\\r\\ntwo\\tthree"),
        ("safe\u202egpj.exe", "safe\\u202egpj.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\u2028line\u2029paragraph", "\\u2028line\\u2029paragraph"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\udce9"),
        ("naïve: 東京 🗝", "naïve: 東京 🗝"),
        ("", ""),
    ],
)
def test_examples(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("abcd", "abcd"),
        ("abcde", "abc…"),
        ("a\x1b", "a\\x…"),
        ("abc\n", "abc…"),
        ("\n\n", "\\n\\n"),
    ],
)
def test_a_cut_shows(text: str, shown: str) -> None:
    assert printable(text, 4) == shown


def test_long_text_costs_no_more_than_its_limit() -> None:
    assert printable("\x00" * 5_000_000, 10) == "\\x00\\x00\\…"
    assert len(printable("x" * 5_000)) == 1_000
