"""Rule files of Kingfisher and of Nosey Parker: YAML, expressions for Rust's regex crate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scanner.patterns.importing.fields import Fields, UnusableFileError
from scanner.patterns.importing.rule import Rule
from scanner.patterns.importing.syntax import Dialect

_OF_KINGFISHER = ("min_entropy", "confidence", "validation", "visible", "pattern_requirements")


def read_yaml_rules(content: Mapping[str, Any]) -> tuple[list[Rule], list[str]]:
    """Return the rules of a file, and what is left out that concerns all of them.

    Errors: `UnusableFileError`.
    """
    rules = content.get("rules")
    if not isinstance(rules, list) or not rules:
        raise UnusableFileError("it has no rules")
    tables = [Fields(one) for one in rules]
    is_kingfisher = any(one.value(name) is not None for one in tables for name in _OF_KINGFISHER)
    source = "kingfisher" if is_kingfisher else "np"
    return [_rule(one, source) for one in tables], []


def _rule(fields: Fields, source: str) -> Rule:
    references = fields.texts("references")
    rule = Rule(
        source=source,
        id=fields.text("id") or fields.text("name"),
        name=fields.text("name"),
        expression=fields.text("pattern"),
        dialect=Dialect.RUST,
        group="TOKEN",
        entropy=fields.decimal("min_entropy"),
        reference=references[0] if references else "",
        examples=fields.texts("examples"),
        negative_examples=fields.texts("negative_examples") + fields.texts("non_examples"),
    )
    if not rule.expression:
        rule.refused = "it has no expression"
    elif fields.value("visible") is False:
        rule.refused = "it only helps other rules, and is never reported by itself"
    if fields.value("validation"):
        rule.notes.append("its validation is left out")
    for requirements in fields.tables("pattern_requirements"):
        _require(rule, requirements)
    return rule


def _require(rule: Rule, requirements: Fields) -> None:
    rule.stopwords += requirements.texts("ignore_if_contains")
    left = [
        name
        for name in (
            "min_digits",
            "min_uppercase",
            "min_lowercase",
            "min_special_chars",
            "checksum",
        )
        if requirements.value(name)
    ]
    if left:
        rule.notes.append(f"its requirements are left out: {', '.join(left)}")
