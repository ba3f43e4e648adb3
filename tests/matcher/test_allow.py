"""Comments that allow a token: which, where, and that they cost the same in any file."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.examine import examine
from scanner.matcher.allow import is_allowed
from scanner.matcher.engine import Matcher

HERE = [
    "patrol:allow", "gitleaks:allow", "betterleaks:allow", "kingfisher:ignore",
    "pragma: allowlist secret", "pragma:allowlist secret", "pragma: whitelist secret",
]  # fmt: skip
NEXT = ["pragma: allowlist nextline secret", "pragma: whitelist nextline secret"]
TOKEN = b"token"


def allowed(text: bytes) -> bool:
    start = text.index(TOKEN)
    return is_allowed(text, start, start + len(TOKEN))


@pytest.mark.parametrize("word", HERE)
@pytest.mark.parametrize("form", ["{t} # {w}", "/* {w} */ {t}", "a\n{t};// {w} (why)\nb", "{w}{t}"])
def test_a_comment_in_the_same_line_allows(word: str, form: str) -> None:
    text = form.format(t=TOKEN.decode(), w=word)
    assert allowed(text.encode())
    assert allowed(text.replace("\n", "\r\n").encode())
    wide = text.encode("utf-16-le")
    start = wide.index(TOKEN.decode().encode("utf-16-le"))
    assert is_allowed(wide, start, start + 2 * len(TOKEN))


@pytest.mark.parametrize("word", HERE)
def test_a_comment_in_another_line_does_not(word: str) -> None:
    for form in ("{w}\n{t}", "{t}\n{w}", "{w}\r\n{t}\r\n{w}"):
        assert not allowed(form.format(t=TOKEN.decode(), w=word).encode())


@pytest.mark.parametrize("word", NEXT)
def test_a_comment_about_the_next_line_allows_that_one(word: str) -> None:
    assert allowed(f"# {word}\nkey = token".encode())
    assert allowed(f"x\n# {word} yes\r\nkey = token".encode())
    for form in ("{w} token", "{w}\n\ntoken", "token\n{w}", "token {w}"):
        assert not allowed(form.format(w=word).encode())


@pytest.mark.parametrize(
    "text", ["token patrol: allow", "token PATROL:ALLOW", "token allow", "token nosec", "token"]
)
def test_other_words_do_not(text: str) -> None:
    assert not allowed(text.encode())


def test_the_token_is_no_comment() -> None:
    data = b"= patrol:allow ="
    assert not is_allowed(data, 2, 14)


@given(st.binary(max_size=60), st.binary(max_size=60), st.sampled_from(HERE))
def test_what_is_on_the_line_decides(left: bytes, right: bytes, word: str) -> None:
    data = left + b" " + TOKEN + b" " + right
    start = len(left) + 1
    line = left.rpartition(b"\n")[2] + b"|" + right.partition(b"\n")[0]
    marked = any(each.encode() in line.replace(b"\0", b"") for each in HERE)
    before = left.replace(b"\0", b"").split(b"\n")
    marked |= len(before) > 1 and any(each.encode() in before[-2] for each in NEXT)
    assert is_allowed(data, start, start + len(TOKEN)) == marked
    assert is_allowed(data + word.encode(), start, start + len(TOKEN)) == (
        marked or b"\n" not in right
    )


def test_it_travels_with_what_is_found(matcher: Matcher, token: Callable[[], str]) -> None:
    text = f"{token()}\n{token()} # patrol:allow\n{token()}\n"
    spots = examine(text.encode(), matcher, 10).spots
    assert [spot.allowed for spot in spots] == [False, True, False]


def test_a_file_of_one_long_line_costs_no_more(matcher: Matcher, token: Callable[[], str]) -> None:
    secret = token()
    taken = {}
    for count in (500, 5_000):
        data = " ".join([secret] * count).encode()
        began = time.perf_counter()
        assert len(examine(data, matcher, count).spots) == count
        taken[count] = time.perf_counter() - began
    assert taken[5_000] < 30 * taken[500]  # ten times as much; quadratic would be a hundred
