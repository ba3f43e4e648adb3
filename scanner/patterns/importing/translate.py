"""From a rule to a pattern, tried on the rule's own examples; or the reason why not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scanner.errors import ConfigurationError
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Pattern, Ruleset
from scanner.matcher.shape import read_shape
from scanner.patterns.importing.edges import Secret, secret_of
from scanner.patterns.importing.rule import Rule
from scanner.patterns.importing.syntax import RefusedError, parse
from scanner.patterns.importing.tree import (
    EVERY,
    Group,
    Node,
    Repeat,
    capped,
    class_body,
    parts,
    spellings,
    width,
    write,
)
from scanner.patterns.reader import MOST_NAME, MOST_SHOWN, MOST_WIDTH, read_pattern

_CAPS = (3_072, 2_048, 1_024, 512, 256, 128)  # for what has no end
_WHOLE = re.compile(r"[^a-z0-9]+")


@dataclass
class Translated:
    """A rule, and the pattern's table where it could be translated."""

    rule: Rule
    issuer: str = ""
    table: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None  # why it could not


def translate(rules: Sequence[Rule]) -> list[Translated]:
    """Translate rules; ids differ from each other."""
    taken: set[str] = set()
    done: list[Translated] = []
    for rule in rules:
        if rule.refused is not None:
            done.append(Translated(rule, reason=rule.refused))
            continue
        try:
            one = _translate(rule, taken)
        except (ConfigurationError, ValueError) as error:  # `RefusedError` is one
            one = Translated(rule, reason=str(error).rstrip("."))
        else:
            taken.add(one.table["id"])
        done.append(one)
    return done


def _translate(rule: Rule, taken: set[str]) -> Translated:
    tree = parse(rule.expression, rule.dialect)
    _keywords(rule, tree)
    secret = secret_of(tree, _group(rule, tree))
    node = _ended(rule, secret.node)
    regex = write(node)
    words = _slug(rule.id.removeprefix(f"{rule.source}.")).split("-")
    issuer = words[0][:MOST_NAME]
    shape = read_shape(regex)
    table: dict[str, Any] = {
        "id": _id(rule, taken),
        "issuer": issuer or rule.source,
        "name": rule.name,
        "regex": regex,
        **_bounds(secret),
        "mask_prefix": min(shape.literal_prefix, MOST_SHOWN),
    }
    if rule.entropy:
        table["entropy"] = rule.entropy
    if placeholders := _placeholders(rule):
        table["placeholders"] = placeholders
    if rule.reference:
        table["reference"] = rule.reference
    rule.notes += dict.fromkeys(secret.notes)
    pattern = read_pattern(table, table["issuer"], own=False, check=True)
    _try(rule, pattern)
    return Translated(rule, table["issuer"], table)


def _group(rule: Rule, tree: Node) -> int | None:
    """Return the number of the group that is the secret."""
    groups = [part for part in parts(tree) if isinstance(part, Group)]
    if isinstance(rule.group, int):
        return rule.group
    named = [one.number for one in groups if one.name == rule.group and one.name is not None]
    if named:
        return named[0]
    if groups and not width(groups[0].node)[0]:
        raise RefusedError("its first group may be empty, and then another one is the secret")
    return groups[0].number if groups else None


def _keywords(rule: Rule, tree: Node) -> None:
    """A keyword is to be somewhere in the file: it goes without saying if it is in every match."""
    if not rule.keywords:
        return
    known = spellings(tree)
    words = [word.lower() for word in rule.keywords]
    if known is None or not all(any(word in one for word in words) for one in known):
        raise RefusedError("it asks for a keyword that may stand anywhere in the file")


def _ended(rule: Rule, node: Node) -> Node:
    """Give an end to what has none."""
    most = width(node)[1]
    if most is not None:
        if most > MOST_WIDTH:
            raise RefusedError(f"its secret may be longer than {MOST_WIDTH} bytes")
        return node
    for cap in _CAPS:
        ended = capped(node, cap)
        if (width(ended)[1] or 0) <= MOST_WIDTH:
            endless = sum(isinstance(one, Repeat) and one.high is None for one in parts(node))
            rule.notes.append(f"{endless} repeats without an end were given one of {cap}")
            return ended
    raise RefusedError("it has too many repeats without an end")


def _bounds(secret: Secret) -> dict[str, str]:
    before, after = (
        class_body(EVERY - side) if side != EVERY else "" for side in (secret.before, secret.after)
    )
    if before == after:
        return {"bounds": before}
    return {"bounds": before, "bounds_after": after}


def _placeholders(rule: Rule) -> list[str]:
    """What spoils a secret, as `re` reads it. Ours know no case, theirs do."""
    found = [re.escape(word) for word in rule.stopwords if word]
    for text in rule.ignored:
        try:
            found.append(f"(?-i:{write(parse(text, rule.dialect))})")
        except RefusedError as error:
            rule.notes.append(f"an expression of what to ignore is left out: {error}")
    return found


def _try(rule: Rule, pattern: Pattern) -> None:
    """Run the rule's examples as the matcher would. Errors: `RefusedError` when all fail."""
    # Bound, so that our own placeholders hide none: people shorten examples by hand.
    matcher = Matcher(Ruleset((pattern,)), bound=frozenset((pattern.id,)))
    missed = [one for one in rule.examples if not matcher.scan(_encoded(one))]
    wrong = [one for one in rule.negative_examples if matcher.scan(_encoded(one))]
    if missed and len(missed) == len(rule.examples):
        raise RefusedError("none of its examples matches when it is translated")
    if missed:
        rule.notes.append(f"{len(missed)} of its {len(rule.examples)} examples do not match")
    if wrong:
        rule.notes.append(
            f"{len(wrong)} of its {len(rule.negative_examples)} negative examples match"
        )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _id(rule: Rule, taken: set[str]) -> str:
    own = _slug(rule.id) or "rule"
    name = own if own.startswith(f"{rule.source}-") else f"{rule.source}-{own}"
    if len(name) > MOST_NAME or name in taken:
        # The same rule has the same id in the next import as well.
        digest = hashlib.sha256(f"{rule.id}\0{rule.expression}".encode("utf-8", "replace"))
        name = f"{name[: MOST_NAME - 9].rstrip('-')}-{digest.hexdigest()[:8]}"
    if name in taken:
        raise RefusedError("it is there already")
    return name


def _slug(text: str) -> str:
    return _WHOLE.sub("-", text.lower()).strip("-")
