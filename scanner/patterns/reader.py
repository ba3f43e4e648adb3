"""Patterns from TOML: the built-in ones and the issuer's own, each checked before it is used."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from scanner.errors import ConfigurationError
from scanner.matcher.ambiguity import is_ambiguous
from scanner.matcher.checksums import CHECKSUMS
from scanner.matcher.database import compile_expressions
from scanner.matcher.pattern import ChecksumMode, Pattern, Ruleset
from scanner.matcher.probes import probes
from scanner.matcher.reference import expression, spans
from scanner.matcher.shape import Shape, byte_class, read_shape
from scanner.patterns.template import LEAST_BITS, parse_template

MOST_WIDTH = 16_384  # bytes; wider tokens would make every window expensive
MOST_SHOWN = 32  # characters of a mask's prefix
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")  # ids and issuers: they end in paths and metrics
MOST_NAME = 64

_TYPES: dict[str, type] = {
    "id": str, "name": str, "regex": str, "bounds": str, "checksum": str, "checksum_mode": str,
    "issuer": str, "bounds_after": str, "entropy": float,
    "mask_prefix": int, "random_end": int, "placeholders": list, "generate": str, "reference": str,
    "examples": list, "near_misses": list,
}  # fmt: skip
_KINDS = {
    str: "a string",
    int: "a whole number",
    float: "a number such as 3.5",
    list: "a list of strings",
}
_REQUIRED = ("id", "name", "regex")


def load(own: Sequence[Path] = (), only: Collection[str] | None = None) -> Ruleset:
    """Return the built-in patterns and those of the `own` files or folders, checked.

    `only` keeps the named ones. Errors: `ConfigurationError` with the file and what is wrong.
    """
    patterns = {pattern.id: pattern for pattern in _built_in()}
    for place in own:
        paths = sorted(place.glob("*.toml")) if place.is_dir() else [place]
        if not paths:
            raise ConfigurationError(f"{place}: the folder holds no .toml file.")
        for path in paths:
            _add(patterns, path, own=True, check=True)
    if only is not None:
        unknown = sorted(set(only) - patterns.keys())
        if unknown or not only:
            names = ", ".join(map(repr, unknown)) or "no pattern was named"
            near = sorted({n for name in unknown for n in get_close_matches(name, patterns)})
            hint = f" Near it: {', '.join(near)}." if near else ""
            raise ConfigurationError(
                f"Unknown pattern: {names}.{hint} `patrol patterns list` names all."
            )
        patterns = {name: pattern for name, pattern in patterns.items() if name in only}
    return Ruleset(tuple(patterns.values()))


def check_built_in() -> None:
    """Check the built-in patterns as an issuer's own are checked, but for how random they are."""
    checked: dict[str, Pattern] = {}
    for path in _built_in_files():
        _add(checked, path, own=False, check=True)


@cache
def _built_in() -> tuple[Pattern, ...]:
    patterns: dict[str, Pattern] = {}
    for path in _built_in_files():
        _add(patterns, path, own=False, check=False)
    return tuple(patterns.values())


def _built_in_files() -> list[Path]:
    return sorted(Path(__file__).parent.glob("*.toml"))


def _add(patterns: dict[str, Pattern], path: Path, *, own: bool, check: bool) -> None:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: is not TOML ({error}).") from None
    issuer, entries = content.get("issuer"), content.get("pattern")
    if not isinstance(content.get("own", True), bool):
        raise ConfigurationError(f"{path}: own must be true or false.")
    # A file of formats that others issue says false. There are many of them, and they were compiled
    # one by one when they were imported; now the matcher compiles all of them at once.
    is_foreign = content.get("own") is False
    own = own and not is_foreign
    if not isinstance(issuer, str) or not isinstance(entries, list) or not entries:
        raise ConfigurationError(f"{path}: needs an issuer and at least one [[pattern]].")
    for entry in entries:
        name = entry.get("id", "?") if isinstance(entry, dict) else "?"
        where = f"{path}, pattern {name}"
        try:
            pattern = read_pattern(entry, issuer, own=own, check=check, compiled=not is_foreign)
        except (ValueError, ConfigurationError) as error:
            raise ConfigurationError(f"{where}: {str(error).rstrip('.')}.") from None
        if pattern.id in patterns:
            raise ConfigurationError(f"{where}: a pattern with this id exists already.")
        patterns[pattern.id] = pattern


def read_pattern(
    entry: object, issuer: str, *, own: bool, check: bool, compiled: bool = True
) -> Pattern:
    """Read one [[pattern]] table; `check` what it means, `compiled`: and whether it can be.

    Errors: `ValueError`, `ConfigurationError`.
    """
    values = _fields(entry)
    shape = read_shape(values["regex"])
    if is_ambiguous(shape.nodes):
        raise ValueError(
            "a repeat in its regex can go on where it can end as well: a near match would take"
            " time without end (let each turn begin or end with a character of its own)"
        )
    if not 0 < shape.min_width <= shape.max_width <= MOST_WIDTH:
        raise ValueError(
            f"its regex must match at least one byte and at most {MOST_WIDTH}, and have an end"
        )
    pattern = Pattern(
        id=_name(values["id"]),
        issuer=_name(values.get("issuer", issuer)),
        name=values["name"],
        regex=values["regex"],
        bounds=values.get("bounds", "A-Za-z0-9"),
        min_width=shape.min_width,
        max_width=shape.max_width,
        checksum=values.get("checksum"),
        checksum_mode=_mode(values),
        mask_prefix=values.get("mask_prefix", 0),
        placeholders=tuple(values.get("placeholders", ())),
        random_end=values.get("random_end", 0),
        generate=values.get("generate", ""),
        reference=values.get("reference", ""),
        own=own,
        bounds_after=values.get("bounds_after"),
        entropy=values.get("entropy", 0.0),
    )
    if check:  # the built-in ones are checked by `check_built_in`, not at every start
        _check(pattern, shape, values)
    if check and compiled:
        compile_expressions([written for _, written in probes(0, shape)])
    return pattern


def _check(pattern: Pattern, shape: Shape, values: dict[str, Any]) -> None:
    """Check what the fields mean together. Errors: `ValueError`, `ConfigurationError`."""
    for bounds in (pattern.bounds, pattern.bounds_after):
        if bounds:
            byte_class(bounds)
    if not 0 <= pattern.entropy < 8:
        raise ValueError("entropy is in bits a byte, from 0 to below 8")
    for placeholder in pattern.placeholders:
        try:
            re.compile(placeholder.encode("ascii"))
        except (re.error, UnicodeEncodeError) as error:
            raise ValueError(f"a placeholder does not compile: {error}") from None
    if not 0 <= pattern.random_end <= pattern.max_width:
        raise ValueError("random_end is not within the token")
    if pattern.mask_prefix > MOST_SHOWN:
        raise ValueError(f"mask_prefix is more than {MOST_SHOWN}; no mail has room for that")
    if not 0 <= pattern.mask_prefix <= shape.literal_prefix:
        # A longer one would show a part of the secret in every mail (law 1).
        raise ValueError(
            f"mask_prefix is {pattern.mask_prefix}, but only the first {shape.literal_prefix} bytes"
            " are the same in every match"
        )
    if pattern.generate:
        _template(pattern)
    try:
        expression(pattern)
    except re.error as error:
        raise ValueError(f"its regex does not compile: {error}") from None
    _literals(pattern, values)


def _fields(entry: object) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError("it is not a table")  # noqa: TRY004 (the reader has one kind of error)
    for field, value in entry.items():
        if field not in _TYPES:
            raise ValueError(f"unknown field {field}; known: {', '.join(_TYPES)}")
        items = value if isinstance(value, list) else ()
        if type(value) is not _TYPES[field] or not all(isinstance(item, str) for item in items):
            raise ValueError(f"{field} must be {_KINDS[_TYPES[field]]}")
    missing = [field for field in _REQUIRED if not entry.get(field)]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    return entry


def _name(value: str) -> str:
    if len(value) > MOST_NAME or not _NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is no name: use lower-case words joined by dashes, {MOST_NAME} at most"
        )
    return value


def _mode(values: dict[str, Any]) -> ChecksumMode:
    checksum, mode = values.get("checksum"), values.get("checksum_mode", ChecksumMode.SCORE.value)
    if checksum is None and "checksum_mode" in values:
        raise ValueError("checksum_mode is set, but no checksum")
    if checksum is not None and checksum not in CHECKSUMS:
        raise ValueError(f"unknown checksum {checksum!r}; known: {', '.join(CHECKSUMS)}")
    if mode not in list(ChecksumMode):
        raise ValueError(f"checksum_mode is one of {', '.join(ChecksumMode)}")
    return ChecksumMode(mode)


def _template(pattern: Pattern) -> None:
    template = parse_template(pattern.generate)
    if pattern.own and template.bits < LEAST_BITS:
        raise ValueError(
            f"generate draws {template.bits:.0f} bits; a token needs at least {LEAST_BITS}"
        )
    if template.checked and pattern.checksum is None:
        raise ValueError("generate has a place for a checksum, but no checksum is named")


def _literals(pattern: Pattern, values: dict[str, Any]) -> None:
    """Literal examples are checked here and not kept. They are counted, never shown."""
    for number, text in enumerate(values.get("examples", ()), 1):
        data = text.encode()
        if spans(pattern, data) != [(0, len(data))]:
            raise ValueError(f"its example {number} does not match")
    for number, text in enumerate(values.get("near_misses", ()), 1):
        if spans(pattern, text.encode()):
            raise ValueError(f"its near-miss {number} matches")
