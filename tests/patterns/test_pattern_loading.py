"""Patterns as data: what is shipped is right; what an issuer writes wrong is refused clearly."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from scanner.errors import ConfigurationError
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Pattern
from scanner.patterns.examples import near_misses
from scanner.patterns.generate import generate, issuable
from scanner.patterns.loader import check_built_in, check_examples, load, try_examples

OWN = {"id": "acme-token", "name": "Acme token", "regex": "acme_[a-z0-9]{32}", "bounds": "a-z0-9_"}


def write(path: Path, *patterns: dict[str, object], issuer: str = "acme") -> Path:
    lines = [f"issuer = {json.dumps(issuer)}"]
    for pattern in patterns:
        lines += ["[[pattern]]", *(f"{k} = {json.dumps(v)}" for k, v in pattern.items())]
    path.write_text("\n".join(lines))
    return path


def refusal(tmp_path: Path, **fields: object) -> str:
    file = write(tmp_path / "own.toml", {**OWN, **fields})
    with pytest.raises(ConfigurationError) as caught:
        load([file])
    message = str(caught.value)
    assert str(file) in message
    return message


def test_what_is_shipped() -> None:
    patterns = {pattern.id: pattern for pattern in load().patterns}
    assert len(patterns) >= 45
    assert len({pattern.issuer for pattern in patterns.values()}) >= 30
    assert not any(pattern.own for pattern in patterns.values())
    assert (patterns["azure-devops-pat"].min_width, patterns["azure-devops-pat"].max_width) == (
        84,
        88,
    )
    for pattern in patterns.values():
        assert pattern.generate
        assert pattern.reference.startswith("https://")
        assert pattern.name


def test_what_is_shipped_passes_every_check_of_an_own_pattern() -> None:
    check_built_in()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_examples_match_and_near_misses_do_not(seed: int) -> None:
    assert check_examples(load(), random.Random(seed)) == []


def test_near_misses_are_of_every_kind() -> None:
    (legacy,) = load(only=["azure-devops-pat-legacy"]).patterns
    token = generate(legacy, random.Random(1)).reveal()
    kinds = {name for name, _ in near_misses(legacy, token, random.Random(1))}
    assert {"cut short at its start", "cut short at its end", "with a wrong checksum"} <= kinds
    assert sum("glued" in kind for kind in kinds) == 4
    assert sum("inside" in kind for kind in kinds) == 4


def test_a_bad_pattern_has_problems(tmp_path: Path) -> None:
    loose: dict[str, object] = {
        **OWN,
        "regex": "acme_[a-z0-9]{30,32}",
        "bounds": "",
        "generate": "acme_{base32:30}",
    }
    (pattern,) = load([write(tmp_path / "own.toml", loose)], only=["acme-token"]).patterns
    problems = check_examples(load([tmp_path], only=["acme-token"]))
    assert problems == []  # without bounds, a neighbour is allowed; nothing else is loose
    wrong: dict[str, object] = {**OWN, "generate": "acme_{base62:40}"}
    write(tmp_path / "own.toml", wrong)
    problems = check_examples(load([tmp_path], only=["acme-token"]))
    assert problems == ["acme-token: a generated token is not found as it is"]
    (result,) = try_examples(load([tmp_path], only=["acme-token"]))
    assert (result.pattern.id, result.problems) == ("acme-token", (problems[0][12:],))
    assert result.tried > 5
    assert pattern.own


@pytest.mark.parametrize("pattern", load().patterns, ids=lambda p: p.id)
def test_generated_tokens_differ_and_a_seed_repeats_them(pattern: Pattern) -> None:
    assert generate(pattern) != generate(pattern.id)
    assert generate(pattern, random.Random(1)) == generate(pattern, random.Random(1))
    assert generate(pattern, random.Random(1)) != generate(pattern, random.Random(2))


def test_only_what_is_random_enough_and_real_can_be_issued() -> None:
    patterns = {pattern.id: pattern for pattern in load().patterns}
    assert issuable(patterns["azure-devops-pat"])
    assert issuable(patterns["npm-access-token"])
    assert not issuable(patterns["aws-access-key-id"])  # 80 bits
    assert not issuable(patterns["json-web-token"])  # nobody signed it
    assert not issuable(replace(patterns["npm-access-token"], generate=""))


def test_an_own_pattern_is_found(tmp_path: Path) -> None:
    write(tmp_path / "own.toml", {**OWN, "mask_prefix": 5, "generate": "acme_{base32:32}"})
    ruleset = load([tmp_path])
    own = ruleset.patterns[-1]
    assert own.own
    assert own.issuer == "acme"
    token = generate(own).reveal()
    (found,) = Matcher(ruleset).scan(b"x = '" + token + b"'")
    assert (found.pattern, found.mask) == ("acme-token", f"acme_…{token[-4:].decode()}")
    assert check_examples(ruleset) == []


def test_only_keeps_the_named() -> None:
    assert [p.id for p in load(only={"github-pat"}).patterns] == ["github-pat"]
    with pytest.raises(ConfigurationError, match=r"'githubpat'\. Near it: .*github-pat"):
        load(only={"github-pat", "githubpat"})
    with pytest.raises(ConfigurationError, match="no pattern was named"):
        load(only=[])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"regex": "acme_[a-z]+"}, "have an end"),
        ({"regex": "acme_.*"}, "have an end"),
        ({"regex": "(?:acme)?"}, "at least one byte"),
        ({"regex": "[a-z]{16385}"}, "at most 16384"),
        ({"regex": "[a-z]{99999999999}"}, "too large"),
        ({"regex": "acme_(["}, "unterminated"),
        ({"regex": "(" * 5000 + "a" + ")" * 5000}, "nested too deeply"),
        ({"regex": "^acme_[a-z]{9}"}, "not supported"),
        ({"regex": r"\bacme_[a-z]{9}"}, "not supported"),
        ({"regex": "(?<!x)acme_[a-z]{9}"}, "not supported"),
        ({"regex": r"([a-z])\1{9}"}, "not supported"),
        ({"regex": "acme_[a-z]{9}+"}, "not supported"),
        ({"regex": "acme_[[:alpha:]]{9}"}, "nested set"),
        ({"regex": "acmé_[a-z]{9}"}, "ASCII"),
        ({"bounds": "a][b"}, "not one character class"),
        ({"bounds": "z-a"}, "not a character class"),
        ({"checksum": "md5"}, "unknown checksum 'md5'; known: azure-devops-marvin32, "),
        ({"checksum_mode": "required"}, "no checksum"),
        ({"checksum": "crc32-base62-6", "checksum_mode": "maybe"}, "one of required, score"),
        ({"mask_prefix": 6}, "only the first 5 bytes"),
        ({"mask_prefix": -1}, "only the first 5 bytes"),
        ({"mask_prefix": True}, "a whole number"),
        ({"random_end": 60}, "not within the token"),
        ({"placeholders": "x"}, "a list of strings"),
        ({"placeholders": ["("]}, "does not compile"),
        ({"generate": "acme_{base32:8}"}, "draws 40 bits"),
        ({"generate": "acme_{klingon:40}"}, "unknown alphabet klingon"),
        ({"generate": "acme_{base32}"}, "a brace"),
        ({"generate": "acme_{base62:30}{check:6}"}, "no checksum is named"),
        ({"examples": ["nothing"]}, "example 1 does not match"),
        ({"near_misses": ["", "acme_" + "0" * 32]}, "near-miss 2 matches"),
        ({"id": "Acme Token"}, "no name"),
        ({"id": "../x"}, "no name"),
        ({"id": "github-pat"}, "exists already"),
        ({"colour": "red"}, "unknown field colour"),
        ({"regex": ""}, "regex is missing"),
        ({"regex": 5}, "regex must be a string"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_refused(tmp_path: Path, fields: dict[str, object], says: str) -> None:
    assert says in refusal(tmp_path, **fields)


def test_the_pattern_is_named(tmp_path: Path) -> None:
    assert "pattern acme-token:" in refusal(tmp_path, regex="a*")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "needs an issuer"),
        (b"issuer = 'acme'\npattern = 5", "needs an issuer"),
        (b"issuer = 'acme'\npattern = [5]", "not a table"),
        (b"issuer = 'A c'\n[[pattern]]\nid='a'\nname='b'\nregex='c'", "'A c' is no name"),
        (b"issuer = ", "not TOML"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "own.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=says) as caught:
        load([file])
    assert str(file) in str(caught.value)


def test_places_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load([tmp_path / "absent.toml"])
    with pytest.raises(ConfigurationError, match=r"holds no \.toml"):
        load([tmp_path])


def test_what_only_the_author_means_is_read_his_way(tmp_path: Path) -> None:
    # Hyperscan alone would take "{,3}" for text.
    write(tmp_path / "own.toml", {**OWN, "regex": "acme_a{,3}[0-9]{20}"})
    matcher = Matcher(load([tmp_path]))
    assert [c.pattern for c in matcher.scan(b"acme_aa" + b"7" * 20)] == ["acme-token"]
