"""The documents say what is: settings, commands, the example pattern, links."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
import pytest

from scanner.cli import cli
from scanner.matcher.checksums import CHECKSUMS
from scanner.matcher.pattern import Pattern
from scanner.patterns.loader import check_examples, load
from scanner.patterns.template import ALPHABETS
from scanner.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def settings_rows() -> dict[str, str]:
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    return dict(re.findall(r"^\| `PATROL_(\w+)` \| (.+?) \| .+ \|$", page, re.MULTILINE))


def test_every_setting_is_documented_with_its_default() -> None:
    rows = settings_rows()
    assert set(rows) == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if field.default not in (None, ()):
            value = field.default
            shown = ",".join(value) if isinstance(value, tuple) else str(value)
            assert rows[name.upper()] == f"`{shown}`", name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_setting_that_does_not_exist(page: Path) -> None:
    named = set(re.findall(r"\bPATROL_([A-Z_]+[A-Z])\b", page.read_text("utf-8")))
    known = {name.upper() for name in Settings.model_fields}
    assert {name.removesuffix("_FILE") for name in named - known} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists(page: Path) -> None:
    lines = re.findall(
        r"(?:^ {4}(?:(?!user )[a-z]+ )?|`)patrol ((?:--)?[a-z][^`\n#→]*)",
        page.read_text("utf-8"),
        re.MULTILINE,
    )
    for line in lines:
        for words in alternatives(line.split()):
            command: click.Command = cli
            rest = list(words)
            while rest and isinstance(command, click.Group) and not rest[0].startswith("-"):
                found = command.get_command(click.Context(command), rest.pop(0))
                assert found is not None, f"{page.name}: patrol {line}"
                command = found
            options = {option for p in command.params for option in p.opts} | {"--help"}
            given = {word.partition("=")[0] for word in rest if word.startswith("--")}
            assert given <= options, f"{page.name}: patrol {line}"


def alternatives(words: list[str]) -> list[list[str]]:
    """ "leaks list|show" stands for two commands."""
    for at, word in enumerate(words):
        if re.fullmatch(r"[a-z]+(\|[a-z]+)+", word):
            return [[*words[:at], one, *words[at + 1 :]] for one in word.split("|")]
    return [words]


def test_the_example_pattern_works(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "your-own-token.md").read_text("utf-8")
    block = "\n".join(re.findall(r"^ {4}(.*)$", page, re.MULTILINE))
    (tmp_path / "own.toml").write_text(block)
    ruleset = load([tmp_path], only=["acme-api-key"])
    assert check_examples(ruleset) == []
    assert ruleset.patterns[0].own


def test_every_field_of_a_pattern_is_documented() -> None:
    page = (ROOT / "docs" / "your-own-token.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+)`", page))
    derived = {"issuer", "own", "min_width", "max_width"}
    assert set(Pattern.__dataclass_fields__) - derived - named == set()
    assert set(re.findall(r"\{(\w+):\d+\}", page)) == set(ALPHABETS)
    assert CHECKSUMS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    links = re.findall(r"\]\(([^)#]+)", text) + re.findall(r'src="([^"]+)"', text)
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


def test_the_changelog_names_this_version() -> None:
    version = importlib.import_module("scanner").__version__
    assert version in (ROOT / "CHANGELOG.md").read_text("utf-8")
