"""Rule files of gitleaks and of Betterleaks: TOML, expressions for Go's RE2.

Betterleaks writes allowlists and entropy as a filter, an expression of its own; the plain forms of
it are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from scanner.patterns.importing.fields import Fields, UnusableFileError
from scanner.patterns.importing.rule import Rule
from scanner.patterns.importing.syntax import Dialect

_FINDING = r'finding\["secret"\]'
_STRINGS = r'(?:\s*(?:`[^`]*`|"(?:[^"\\]|\\.)*"|r"[^"]*")\s*,?)+\s*'
_TERM = re.compile(
    rf"\s*(?:filter\.)?(?:entropy\({_FINDING}\)\s*<=?\s*(?P<entropy>[0-9.]{{1,10}})"
    rf"|(?P<call>matchesAny|containsAny)\({_FINDING},\s*\[(?P<strings>{_STRINGS})\]\))\s*(?:\|\||$)"
)
_STRING = re.compile(r'`([^`]*)`|r?"((?:[^"\\]|\\.)*)"')


def read_leaks(content: Mapping[str, Any]) -> tuple[list[Rule], list[str]]:
    """Return the rules of a file, and what is left out that concerns all of them.

    Errors: `UnusableFileError`.
    """
    rules = content.get("rules")
    if not isinstance(rules, list) or not rules:
        raise UnusableFileError("it has no [[rules]]")
    tables = [Fields(one) for one in rules]
    is_better = "betterleaksMinVersion" in content or any(one.value("filter") for one in tables)
    source = "betterleaks" if is_better else "gitleaks"
    notes = [
        f"{name} of the file, which is for all rules, is left out: {what}"
        for name, what in (
            ("allowlist", "paths, expressions and words that are ignored everywhere"),
            ("allowlists", "paths, expressions and words that are ignored everywhere"),
            ("prefilter", "which files are looked at"),
            ("filter", "which secrets are ignored everywhere"),
            ("extend", "rules of another file"),
        )
        if content.get(name)
    ]
    return [_rule(one, source) for one in tables], notes


def _rule(fields: Fields, source: str) -> Rule:
    rule = Rule(
        source=source,
        id=fields.text("id"),
        name=fields.text("id").replace("-", " ").replace("_", " "),
        expression=fields.text("regex"),
        dialect=Dialect.GO,
        group=fields.number("secretGroup") or None,
        entropy=fields.decimal("entropy"),
        keywords=fields.texts("keywords"),
    )
    if not rule.expression:
        rule.refused = "it has no expression: it looks for files by their path"
    elif fields.text("path"):
        rule.refused = "it looks into files with certain paths only"
    elif fields.value("required"):
        rule.refused = "it counts only beside what another rule finds"
    elif fields.value("skipReport"):
        rule.refused = "it only helps other rules, and is never reported by itself"
    if fields.text("filter"):
        _filter(rule, fields.text("filter"))
    if fields.value("validate"):
        rule.notes.append("its validation is left out")
    for allowlist in fields.tables("allowlists") or fields.tables("allowlist"):
        _allow(rule, allowlist)
    return rule


def _allow(rule: Rule, allowlist: Fields) -> None:
    left = [name for name in ("paths", "commits") if allowlist.value(name)]
    target = allowlist.text("regexTarget") or "secret"
    if allowlist.text("condition").upper() == "AND":
        rule.notes.append("an allowlist of several conditions is left out")
        return
    if left:
        rule.notes.append(f"an allowlist's {' and '.join(left)} are left out")
    rule.stopwords += allowlist.texts("stopwords")
    if target == "secret":
        rule.ignored += allowlist.texts("regexes")
    elif allowlist.texts("regexes"):
        rule.notes.append(f"an allowlist that looks at the {target} is left out")


def _filter(rule: Rule, text: str) -> None:
    """Read a filter as far as it is a choice of plain terms; what else it says is left out."""
    position = 0
    while found := _TERM.match(text, position):
        position = found.end()
        if found["entropy"]:
            rule.entropy = float(found["entropy"])
            continue
        words = list(_strings(found["strings"]))
        if found["call"] == "matchesAny":
            rule.ignored += words
        else:
            rule.stopwords += words
    if text[position:].strip():
        rule.notes.append("a part of its filter is left out")


def _strings(text: str) -> Iterator[str]:
    for found in _STRING.finditer(text):
        quoted = found[2]
        if found[1] is not None:
            yield found[1]
        elif found[0].startswith("r"):
            yield quoted
        else:
            yield re.sub(r"\\(.)", r"\1", quoted)
