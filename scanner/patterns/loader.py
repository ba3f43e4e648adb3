"""Patterns from TOML: the built-in ones and the issuer's own, each checked before it is used."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scanner.errors import ConfigurationError
from scanner.matcher.cache import compile_database
from scanner.matcher.checksums import CHECKSUMS
from scanner.matcher.pattern import ChecksumMode, Pattern, Ruleset
from scanner.matcher.reference import expression, spans
from scanner.patterns.generate import generate

_MOST_WIDTH = 4_096  # bytes; wider tokens would make every window expensive
_FIELDS = {
    "id", "name", "regex", "anchor", "bounds", "checksum", "checksum_mode", "mask_prefix",
    "placeholders", "generate", "reference",
}  # fmt: skip


def load(own: Sequence[Path] = (), only: Collection[str] | None = None) -> Ruleset:
    """Return the built-in patterns and those of the `own` files or folders, checked.

    `only` keeps the named ones. Errors: `ConfigurationError` with the file and what is wrong.
    """
    patterns: dict[str, Pattern] = {}
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        _add(patterns, path, own=False)
    for place in own:
        for path in sorted(place.glob("*.toml")) if place.is_dir() else [place]:
            _add(patterns, path, own=True)
    if only is not None:
        unknown = sorted(set(only) - patterns.keys())
        if unknown:
            raise ConfigurationError(
                f"Unknown pattern {unknown[0]!r}; known: {', '.join(sorted(patterns))}."
            )
        patterns = {name: pattern for name, pattern in patterns.items() if name in only}
    return Ruleset(tuple(patterns.values()))


def _add(patterns: dict[str, Pattern], path: Path, *, own: bool) -> None:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}.") from None
    issuer = content.get("issuer")
    entries = content.get("pattern")
    if not isinstance(issuer, str) or not isinstance(entries, list):
        raise ConfigurationError(f"{path}: needs an issuer and at least one [[pattern]].")
    for entry in entries:
        pattern = _read(path, issuer, entry, own=own)
        if pattern.id in patterns:
            raise ConfigurationError(f"{path}: the pattern {pattern.id} exists already.")
        patterns[pattern.id] = pattern


def _read(path: Path, issuer: str, entry: dict[str, Any], *, own: bool) -> Pattern:
    where = f"{path}, pattern {entry.get('id', '?')}"
    unknown = entry.keys() - _FIELDS
    missing = {"id", "name", "regex"} - entry.keys()
    if unknown or missing:
        problem = f"unknown field {min(unknown)}" if unknown else f"{min(missing)} is missing"
        raise ConfigurationError(f"{where}: {problem}.")
    values = dict(entry, issuer=issuer, own=own, placeholders=tuple(entry.get("placeholders", ())))
    values.setdefault("bounds", "A-Za-z0-9")
    try:
        values["checksum_mode"] = ChecksumMode(values.get("checksum_mode", "score"))
        pattern = Pattern(**values, min_width=0, max_width=0)
        low, high = re._parser.parse(pattern.regex.encode("ascii")).getwidth()  # type: ignore[attr-defined]
        expression(pattern)
        if pattern.anchor:
            re.compile(pattern.anchor.encode("ascii"))
    except (ValueError, TypeError, re.error) as error:
        raise ConfigurationError(f"{where}: {error}.") from None
    if pattern.checksum is not None and pattern.checksum not in CHECKSUMS:
        raise ConfigurationError(f"{where}: unknown checksum {pattern.checksum!r}.")
    if low == 0 or high > _MOST_WIDTH:
        raise ConfigurationError(
            f"{where}: it must match at least one byte and at most {_MOST_WIDTH}."
        )
    pattern = replace(pattern, min_width=low, max_width=high)
    compile_database(Ruleset((pattern,)))
    return pattern


def check_examples(ruleset: Ruleset) -> list[str]:
    """Return what is wrong: generated tokens that do not match, near-misses that do."""
    problems = []
    for pattern in ruleset.patterns:
        if not pattern.generate:
            continue
        token = generate(pattern).reveal()
        if (0, len(token)) not in spans(pattern, token):
            problems.append(f"{pattern.id}: a generated token does not match")
        glued = {"a character before": b"a" + token, "a character after": token + b"a"}
        cut = {"one short at the start": token[1:], "one short at the end": token[:-1]}
        for name, near_miss in (*glued.items(), *cut.items()):
            if spans(pattern, near_miss):
                problems.append(f"{pattern.id}: matches with {name}")
    return problems
