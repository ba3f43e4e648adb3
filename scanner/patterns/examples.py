"""Do patterns match what they should, and nothing near it? For `patrol patterns test` and tests."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from scanner.errors import ConfigurationError
from scanner.matcher.checksums import CHECKSUMS
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import ChecksumMode, Pattern, Ruleset
from scanner.matcher.shape import byte_class
from scanner.model import Checksum
from scanner.patterns.generate import generate
from scanner.patterns.template import ALPHABETS

_SAMPLES = 5
_FOREIGN = b" !\x00\xff"  # one of these is outside any sane token's alphabet


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one pattern's examples; none were `tried` where there is no template."""

    pattern: Pattern
    tried: int = 0  # tokens and near-misses
    problems: tuple[str, ...] = ()


def check_examples(ruleset: Ruleset, rng: random.Random | None = None) -> list[str]:
    """Return what is wrong: generated tokens that are not found, near-misses that are."""
    return [
        f"{result.pattern.id}: {problem}"
        for result in try_examples(ruleset, rng)
        for problem in result.problems
    ]


def try_examples(ruleset: Ruleset, rng: random.Random | None = None) -> Iterator[Result]:
    """Try the examples of each pattern.

    Each pattern is tried alone, as the matcher runs it. Problems never show a token.
    """
    source = rng or secrets.SystemRandom()
    for pattern in ruleset.patterns:
        yield _try(pattern, source) if pattern.generate else Result(pattern)


def _try(pattern: Pattern, source: random.Random) -> Result:
    # Bound, so that no placeholder filter hides a match that should not be.
    matcher = Matcher(Ruleset((pattern,)), bound=frozenset({pattern.id}))
    problems: set[str] = set()
    tried = 0
    for _ in range(_SAMPLES):
        try:
            token = generate(pattern, source).reveal()
        except ConfigurationError as error:
            return Result(pattern, tried, (str(error),))
        tried += 1
        found = matcher.scan(b" " + token + b"\n")
        if [(c.start, c.end) for c in found] != [(1, 1 + len(token))]:
            problems.add("a generated token is not found as it is")
        elif found[0].checksum is Checksum.INVALID:
            problems.add("a generated token has a wrong checksum")
        for name, near_miss in near_misses(pattern, token, source):
            tried += 1
            if matcher.scan(near_miss):
                problems.add(f"matches a token {name}")
    return Result(pattern, tried, tuple(sorted(problems)))


def near_misses(
    pattern: Pattern, token: bytes, source: random.Random
) -> Iterator[tuple[str, bytes]]:
    """Spoil `token` by rule: (how, bytes). What happens to be another whole token is left out."""
    spoiled = {"cut short at its start": token[1:], "cut short at its end": token[:-1]}
    bounds_after = pattern.bounds if pattern.bounds_after is None else pattern.bounds_after
    for byte in _ends(pattern.bounds):
        spoiled[f"glued to \\x{byte:02x} before"] = bytes((byte,)) + token
    for byte in _ends(bounds_after):
        spoiled[f"glued to \\x{byte:02x} after"] = token + bytes((byte,))
    # Early enough that nothing whole stands before it.
    middle = (pattern.mask_prefix + min(len(token), pattern.min_width)) // 2
    for byte in _FOREIGN:
        spoiled[f"with \\x{byte:02x} inside"] = (
            token[:middle] + bytes((byte,)) + token[middle + 1 :]
        )
    if pattern.checksum is not None and pattern.checksum_mode is ChecksumMode.REQUIRED:
        spoiled["with a wrong checksum"] = _unchecked(pattern, token, source)
    whole = re.compile(pattern.regex.encode("ascii"))
    for name, near_miss in spoiled.items():
        gate = name.endswith("checksum")
        if gate or not whole.fullmatch(near_miss):
            yield name, near_miss


def _ends(bounds: str) -> set[int]:
    """The first and the last byte of a class."""
    members = byte_class(bounds) if bounds else frozenset()
    return {min(members), max(members)} if members else set()


def _unchecked(pattern: Pattern, token: bytes, source: random.Random) -> bytes:
    """Change a character of the random part so that the shape stays and the checksum breaks."""
    whole = re.compile(pattern.regex.encode("ascii"))
    verify = CHECKSUMS[pattern.checksum or ""].verify
    letters = ALPHABETS["base62"].encode()
    for index in range(pattern.mask_prefix, len(token)):
        for byte in source.sample(letters, len(letters)):
            changed = token[:index] + bytes((byte,)) + token[index + 1 :]
            if whole.fullmatch(changed) and not verify(changed):
                return changed
    raise ConfigurationError(f"{pattern.id}: every token of its shape passes its checksum.")
