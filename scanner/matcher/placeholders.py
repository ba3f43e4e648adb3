"""What people write where a token would stand: words, runs, sequences, repetitions.

A filter must not eat tokens. So no threshold here is chosen: each is the least length that random
characters show less often than once in `1 / _BUDGET`, computed from how many there are and from the
smallest alphabet that holds what was seen (a token may mix alphabets: Slack's begin with digits). A
larger alphabet would only make chance rarer. All rules together stay below one random token in a
million; tests count and compute.

Never ask this of a token whose checksum is valid, of the issuer's own patterns, or of those that a
store answers for: a store knows better.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

from scanner.matcher.pattern import Pattern

_BUDGET = 5e-8  # of each rule: the chance that it takes a random token
_SIGNS = b"-_.~+/=:, "  # what formats and placeholders put between parts
_WORDS = (
    "example", "yourtoken", "yourkey", "yoursecret", "yourapi", "youraccess", "yourpersonal",
    "tokenhere", "keyhere", "secrethere", "placeholder", "changeme", "replaceme", "replacewith",
    "redacted", "dummytoken", "dummykey", "faketoken", "fakekey", "notareal", "notreal",
    "testtoken", "mytoken", "mysecret", "insertyour", "loremipsum",
)  # fmt: skip
_HEX_WORDS = ("deadbeef", "cafebabe", "deadc0de", "baadf00d")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "azertyuiop")
_HEAD = 6  # bytes; every word is longer
_ROW_WAYS = 20  # stretches of their rows
_UP = bytes.maketrans(
    (string.digits + string.ascii_lowercase).encode(),
    (string.digits[1:] + "0" + string.ascii_lowercase[1:] + "a").encode(),
)  # 9 goes on with 0, z with a
_SAME = bytes(range(256))
_DOWN = bytes(_UP.index(byte) for byte in _SAME)
_PARTS = re.compile(rb"[^a-z0-9]+")
_KINDS = ((re.compile(rb"[0-9]*\Z"), 10), (re.compile(rb"[0-9a-f]*\Z"), 16))
_LEAST_SIZE, _LETTERS, _ALL = 10, 26, 31  # without regard to case: 52 letters are as 26 ...
_LEAST_CHARACTERS = 12  # a shorter random part says nothing about chance


def compiled(pattern: Pattern) -> tuple[re.Pattern[bytes], ...]:
    """Return the pattern's own placeholder expressions, compiled for `filtered`."""
    return tuple(re.compile(text.encode(), re.IGNORECASE) for text in pattern.placeholders)


def filtered(pattern: Pattern, value: bytes, own: Sequence[re.Pattern[bytes]] = ()) -> bool:
    """Tell whether `value`, which the pattern matched, is a placeholder and no token.

    `own`: what `compiled` returned for the pattern.
    """
    if any(expression.search(value) for expression in own):
        return True
    return is_placeholder(value[pattern.mask_prefix : pattern.random_end or len(value)])


def is_placeholder(text: bytes) -> bool:
    """Tell whether a random part reads as one that a person, and not chance, has written."""
    folded = text.lower()
    bare = folded.translate(None, _SIGNS)
    if len(bare) < _LEAST_CHARACTERS:
        return False
    return (
        _few_characters(folded)
        or _goes_on(bare, _SAME, 1)
        or _goes_on(bare, _UP, 1)
        or _goes_on(bare, _DOWN, 1)
        or _goes_on(bare, _UP, 2)
        or _goes_on(bare, _DOWN, 2)
        or _repeats(bare)
        or _has_word(bare)
    )


@lru_cache(maxsize=8_192)
def _most(length: int, size: int, ways: int, free: int) -> int:
    """The longest stretch that chance is allowed: `ways` to be one, `free` characters begin it."""
    return free + math.ceil(math.log(length * ways / _BUDGET, size)) - 1


@lru_cache(maxsize=4_096)
def _few(length: int, size: int) -> int:
    """The greatest count of distinct characters that chance shows too seldom to be believed."""
    count = 0
    while count < size - 1 and (
        math.log(math.comb(size, count + 1)) + length * math.log((count + 1) / size)
        < math.log(_BUDGET)
    ):
        count += 1
    return count


def _size(text: bytes) -> int:
    """The size of the smallest alphabet that holds `text` (lower case)."""
    return next((size for kind, size in _KINDS if kind.match(text)), _LETTERS)


def _few_characters(folded: bytes) -> bool:
    """Of the longest part only: parts may have alphabets of their own."""
    part = folded if folded.isalnum() else max(_PARTS.split(folded), key=len)
    return len(set(part)) <= _few(len(part), min(_size(part), 16))


def _goes_on(text: bytes, following: bytes, apart: int) -> bool:
    """Whether many characters in a row (or, as in a1b2c3, every other one) are each what
    `following` has for the one before."""
    count = len(text) - apart
    expected = int.from_bytes(text[:count].translate(following), "big")
    differences = (expected ^ int.from_bytes(text[apart:], "big")).to_bytes(count, "big")
    fewest = _most(len(text), _LETTERS, 2, apart)
    if bytes(fewest + 1 - apart) not in differences:
        return False
    return any(
        high - low > _most(len(text), _size(text[low:high]), 2, apart)
        for low, high in _stretches(differences, apart)
    )


def _stretches(differences: bytes, apart: int) -> Iterator[tuple[int, int]]:
    for zeros in re.finditer(rb"\0+", differences):
        yield zeros.start(), zeros.end() + apart


def _repeats(bare: bytes) -> bool:
    """Whether the text is one shorter text over and over."""
    half = len(bare) // 2
    period = bare.find(bare[:half], 1)
    while 0 < period <= half:
        if bare[period:] == bare[:-period]:
            return len(bare) - period > _most(len(bare), _LEAST_SIZE, 1, 0)
        period = bare.find(bare[:half], period + 1)
    return False


def _has_word(bare: bytes) -> bool:
    size = _LETTERS if bare.isalpha() else _ALL
    words, heads = _words(len(bare), size)
    begins = [bare[at : at + _HEAD] for at in range(len(bare) - _HEAD)]
    return not heads.isdisjoint(begins) and any(word in bare for word in words)


@lru_cache(maxsize=4_096)
def _words(length: int, size: int) -> tuple[tuple[bytes, ...], frozenset[bytes]]:
    """The words, and stretches of keyboard rows, that no text of chance holds; how they begin."""
    alike = Counter(map(len, _WORDS))
    words = [word for word in _WORDS if len(word) > _most(length, size, alike[len(word)], 0)]
    words += [word for word in _HEX_WORDS if len(word) > _most(length, 16, len(_HEX_WORDS), 0)]
    least = _most(length, size, _ROW_WAYS, 0) + 1
    for row in _ROWS:
        words += [row[at : at + least] for at in range(len(row) - least + 1)]
    written = tuple(word.encode() for word in words)
    return written, frozenset(word[:_HEAD] for word in written)
