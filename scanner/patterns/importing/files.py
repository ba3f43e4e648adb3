"""Rule files: read, told apart by what they hold, and written as one pattern file."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scanner.errors import ConfigurationError
from scanner.patterns.importing.fields import UnusableFileError
from scanner.patterns.importing.leaks_toml import read_leaks
from scanner.patterns.importing.rule import Rule
from scanner.patterns.importing.rules_yaml import read_yaml_rules
from scanner.patterns.importing.translate import Translated, translate
from scanner.text import printable

_MOST_BYTES = 16 << 20
_SUFFIXES = {".toml", ".yml", ".yaml"}


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of rule files: all their rules, and what was left out that concerns whole files."""

    files: tuple[str, ...]  # their names
    rules: tuple[Translated, ...]
    notes: tuple[str, ...] = ()

    @property
    def refused(self) -> tuple[Translated, ...]:
        """The rules that could not be expressed."""
        return tuple(one for one in self.rules if one.reason is not None)

    @property
    def count(self) -> int:
        """How many patterns there are."""
        return len(self.rules) - len(self.refused)

    def report(self) -> Iterator[str]:
        """Yield a line for all that is missing or different, rule by rule; safe to show."""
        for note in self.notes:
            yield printable(note)
        for one in self.rules:
            if one.reason is not None:
                yield printable(f"{one.rule.id}: not imported: {one.reason}")
        for one in self.rules:
            if one.reason is None:
                for note in one.rule.notes:
                    yield printable(f"{one.rule.id}: {note}")

    def reasons(self) -> Counter[str]:
        """Return how often each reason kept a rule out."""
        return Counter(one.reason for one in self.refused if one.reason is not None)


def import_rules(paths: Iterable[Path]) -> Imported:
    """Translate the rules of files; of a folder, those that stand in it directly.

    Errors: `ConfigurationError` when one cannot be read or is no rule file.
    """
    names: list[str] = []
    rules: list[Rule] = []
    notes: list[str] = []
    for path in paths:
        for file in _files(path):
            try:
                found, left = _read(file)
            except UnusableFileError as error:
                raise ConfigurationError(f"{file}: {error}.") from None
            names.append(file.name)
            rules += found
            notes += (f"{file.name}: {note}" for note in left)
    return Imported(tuple(names), tuple(translate(rules)), tuple(notes))


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return (path,)
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    if not files:
        raise ConfigurationError(f"{path}: the folder holds no rule file.")
    return files


def _read(path: Path) -> tuple[list[Rule], list[str]]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UnusableFileError(f"cannot be read ({error.strerror})") from None
    if len(data) > _MOST_BYTES:
        raise UnusableFileError(f"is larger than {_MOST_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UnusableFileError("is not UTF-8") from None
    if path.suffix == ".toml":
        try:
            return read_leaks(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise UnusableFileError(f"is not TOML ({error})") from None
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 (a safe loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise UnusableFileError(f"is not YAML ({problem})") from None
    if not isinstance(content, dict):
        raise UnusableFileError("is no rule file of a scanner that is known")
    return read_yaml_rules(content)


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def write_patterns(imported: Imported) -> str:
    """Return the patterns as a file that `load` accepts; what is missing stands at its top."""
    lines = [
        f"# Imported by patrol patterns import from {printable(', '.join(imported.files))}.",
        "# The rules are their authors', and so is the licence: heed it before you pass them on.",
        f"# {imported.count} of {len(imported.rules)} rules were imported.",
    ]
    lines += [f"# {line}" for line in imported.report()]
    sources = sorted({one.rule.source for one in imported.rules}) or ["imported"]
    lines += ["", f"issuer = {json.dumps(sources[0])}", "own = false  # others issue these tokens"]
    for one in imported.rules:
        if one.reason is None:
            lines += ["", "[[pattern]]", *_table(one.table)]
    return "\n".join(lines) + "\n"


def _table(table: Mapping[str, Any]) -> Iterator[str]:
    for field, value in table.items():
        if isinstance(value, list):
            yield f"{field} = [{', '.join(map(_text, value))}]"
        else:
            yield f"{field} = {_text(value) if isinstance(value, str) else repr(value)}"


def _text(value: str) -> str:
    if "'" not in value and value.isprintable():
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
