"""A rule of another scanner, as far as we understand it."""

from __future__ import annotations

from dataclasses import dataclass, field

from scanner.patterns.importing.syntax import Dialect


@dataclass
class Rule:
    """One rule, read but not yet translated.

    `refused`: why it cannot be expressed, as far as its file alone shows; `notes`: what of it is
    left out though it can. `ignored`: expressions that spoil a secret they match, each with the
    dialect's syntax; `stopwords`: words that spoil one which holds them.
    """

    source: str  # the scanner: "gitleaks", "kingfisher"
    id: str
    name: str
    expression: str
    dialect: Dialect
    group: int | str | None = None  # the secret's group; None: the first, or the whole
    entropy: float = 0.0
    keywords: tuple[str, ...] = ()  # one of which must be in the file
    ignored: list[str] = field(default_factory=list)
    stopwords: list[str] = field(default_factory=list)
    reference: str = ""
    examples: tuple[str, ...] = ()
    negative_examples: tuple[str, ...] = ()
    refused: str | None = None
    notes: list[str] = field(default_factory=list)
