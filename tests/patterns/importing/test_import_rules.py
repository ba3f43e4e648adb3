"""Rule files of other scanners become pattern files; what cannot be expressed is named."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

import pytest

from scanner.errors import ConfigurationError
from scanner.matcher.engine import Matcher
from scanner.patterns.importing.files import Imported, import_rules, write_patterns
from scanner.patterns.loader import load

RNG = random.Random(11)


def draw(alphabet: str, count: int) -> str:
    return "".join(RNG.choices(alphabet, k=count))


HEX = "0123456789abcdef"
LOWER = "abcdefghjkmnpqrstuvwxyz0123456789"


def imported(tmp_path: Path, name: str, text: str) -> Imported:
    path = tmp_path / name
    path.write_text(text)
    return import_rules([path])


def loaded(tmp_path: Path, result: Imported) -> dict[str, Any]:
    path = tmp_path / "out.toml"
    path.write_text(write_patterns(result))
    tomllib.loads(path.read_text())
    ids = {one.table["id"] for one in result.rules if one.reason is None}
    return {one.id: one for one in load([path]).patterns if one.id in ids}


GITLEAKS = r"""
title = "ours"
[allowlist]
paths = ['''\.lock$''']

[[rules]]
id = "acme-token"
description = "Acme"
regex = '''(?i)\b(acme_[a-z0-9]{32})(?:[\x60'"\s;]|\\[nr]|$)'''
entropy = 3.0
keywords = ["acme_"]
[[rules.allowlists]]
regexes = ['''^acme_0''', '''(?i)TEST$''', '''(?=x)''']
stopwords = ["dummy"]
paths = ['''docs/''']

[[rules]]
id = "acme-open-end"
regex = '''open-[a-z]{20,}'''
keywords = ["open-"]

[[rules]]
id = "far"
regex = '''(?i)acme.{0,40}([a-f0-9]{32})'''
keywords = ["acme"]

[[rules]]
id = "hex"
regex = '''\b[a-f0-9]{32}\b'''
keywords = ["acme"]

[[rules]]
id = "file"
path = '''\.p12$'''

[[rules]]
id = "in-file"
path = '''\.php$'''
regex = '''php_[a-z]{20}'''
"""


def test_gitleaks(tmp_path: Path) -> None:
    result = imported(tmp_path, "rules.toml", GITLEAKS)
    patterns = loaded(tmp_path, result)
    assert set(patterns) == {"gitleaks-acme-token", "gitleaks-acme-open-end"}
    token = patterns["gitleaks-acme-token"]
    assert (token.issuer, token.entropy, token.own) == ("acme", 3.0, False)
    assert patterns["gitleaks-acme-open-end"].max_width == 5 + 3_072
    report = "\n".join(result.report())
    for line in (
        "rules.toml: allowlist of the file",
        "far: not imported: its secret is told by what stands before it",
        "hex: not imported: it asks for a keyword",
        "file: not imported: it has no expression",
        "in-file: not imported: it looks into files with certain paths only",
        "acme-token: an allowlist's paths are left out",
        "acme-token: an expression of what to ignore is left out: it uses look-around",
        "acme-open-end: 1 repeats without an end were given one of 3072",
    ):
        assert line in report
        assert line in write_patterns(result)
    assert result.count == 2
    assert sum(result.reasons().values()) == 4


def test_what_it_finds(tmp_path: Path) -> None:
    loaded(tmp_path, imported(tmp_path, "rules.toml", GITLEAKS))
    ruleset = load([tmp_path / "out.toml"], ["gitleaks-acme-token"])
    matcher = Matcher(ruleset)

    def finds(text: str) -> list[str]:
        return [one.secret.reveal().decode() for one in matcher.scan(text.encode())]

    good = "acme_k" + draw(LOWER, 30) + "7"
    for text in (good, f"'{good}'", f"key = {good}\\n", f"\n{good};"):
        assert finds(text) == [good]
    upper = good.upper()
    assert finds(upper) == [upper]
    for text in (f"{good}-", f"x{good}", f"_{good}", good[:-1], f"{good}\x00"):
        assert finds(text) == []
    assert finds("acme_" + "ab" * 16) == []  # its entropy is 2 and a bit
    assert finds("acme_0" + good[6:]) == []
    assert finds("ACME_0" + good[6:]) == ["ACME_0" + good[6:]]  # that knows case
    assert finds(good[:-4] + "test") == []
    assert finds(good[:-6] + "dumMy7") == []


def test_betterleaks_filters(tmp_path: Path) -> None:
    result = imported(
        tmp_path,
        "b.toml",
        r'''
betterleaksMinVersion = "v1"
[[rules]]
id = "plain"
regex = "pl_[a-z0-9]{30}"
filter = """entropy(finding["secret"]) <= 3.5 || matchesAny(finding["secret"], [`^pl_0`, `x$`])"""
[[rules]]
id = "words"
regex = "wo_[a-z0-9]{30}"
filter = 'containsAny(finding["secret"], ["dummy", "none"])'
[[rules]]
id = "odd"
regex = "od_[a-z0-9]{30}"
filter = 'entropy(finding["secret"]) < 3.1 || !matchesAny(finding["secret"], [`a`])'
validate = "http.get(1)"
[[rules]]
id = "part"
regex = "pa_[a-z0-9]{30}"
skipReport = true
[[rules]]
id = "whole"
regex = "wh_[a-z0-9]{30}"
required = [{ id = "part" }]
''',
    )
    patterns = loaded(tmp_path, result)
    assert patterns["betterleaks-plain"].entropy == 3.5
    assert patterns["betterleaks-plain"].placeholders == (
        r"(?-i:\Apl_0)",
        r"(?-i:x\Z)",
    )
    assert patterns["betterleaks-words"].placeholders == ("dummy", "none")
    assert patterns["betterleaks-odd"].entropy == 3.1
    report = list(result.report())
    assert "odd: a part of its filter is left out" in report
    assert "odd: its validation is left out" in report
    assert any(line.startswith("part: not imported: it only helps") for line in report)
    assert any(line.startswith("whole: not imported: it counts only beside") for line in report)


def yaml_rule(**fields: str) -> str:
    lines = [f"    {name}: {value}" for name, value in fields.items()]
    return "  - " + "\n".join(lines).strip() + "\n"


def test_kingfisher_and_its_examples(tmp_path: Path) -> None:
    token = "kf_" + draw(LOWER, 32)
    other = "kg_" + draw(LOWER, 32)
    text = "rules:\n" + "".join(
        (
            yaml_rule(name="Acme Key", id="kingfisher.acme.1", min_entropy="3.0",
                      pattern=r'"(?xi) \\b ( kf_[a-z0-9]{32} ) \\b  # the key"',
                      references="[https://example.org/doc]",
                      examples=f"['key={token}', 'key: {token}X']"),
            yaml_rule(name="Acme Other", id="kingfisher.acme.2", pattern="'kx_[a-z0-9]{32}'",
                      examples=f"['{other}']"),
            yaml_rule(name="Acme Hidden", id="kingfisher.acme.3", visible="false",
                      pattern="'kh_[a-z0-9]{32}'", examples="[]"),
            yaml_rule(name="Acme Named", id="kingfisher.acme.4",
                      pattern="'(?P<TOKEN>kn_[a-z0-9]{32})'", examples=f"['kn_{draw(LOWER, 32)}']",
                      pattern_requirements="{min_digits: 2, ignore_if_contains: [dummy]}"),
        )
    )  # fmt: skip
    result = imported(tmp_path, "rules.yml", text)
    patterns = loaded(tmp_path, result)
    assert set(patterns) == {"kingfisher-acme-1", "kingfisher-acme-4"}
    assert (patterns["kingfisher-acme-1"].issuer, patterns["kingfisher-acme-1"].name) == (
        "acme",
        "Acme Key",
    )
    assert patterns["kingfisher-acme-1"].reference == "https://example.org/doc"
    report = list(result.report())
    assert "kingfisher.acme.1: 1 of its 2 examples do not match" in report
    assert "kingfisher.acme.4: its requirements are left out: min_digits" in report
    none = "kingfisher.acme.2: not imported: none of its examples matches when it is translated"
    assert none in report
    assert token not in write_patterns(result)  # it may be a real one
    assert other not in "".join(report)


def test_nosey_parker_negative_examples(tmp_path: Path) -> None:
    token = "np_" + draw(HEX, 32)
    text = "rules:\n" + yaml_rule(
        name="Acme", id="np.acme.1", pattern=r"'\b(np_[a-f0-9]{32})\b'",
        categories="[api]", examples=f"['{token}']",
        negative_examples=f"['{token[:-1]}', 'a {token}']",
    )  # fmt: skip
    result = imported(tmp_path, "rules.yaml", text)
    assert set(loaded(tmp_path, result)) == {"np-acme-1"}
    assert list(result.report()) == ["np.acme.1: 1 of its 2 negative examples match"]


def test_ids_are_names_and_differ(tmp_path: Path) -> None:
    rules = "".join(
        f"[[rules]]\nid = {name!r}\nregex = '{prefix}_[a-z0-9]{{30}}'\n"
        for name, prefix in (("A.b", "aa"), ("a-b", "bb"), ("x" * 90, "cc"), ("é!", "dd"))
    )
    result = imported(tmp_path, "r.toml", rules)
    assert len(loaded(tmp_path, result)) == result.count == 4


def test_a_folder_and_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "readme.md").write_text("no rules")
    for name in ("one", "two"):
        rule = yaml_rule(name=name, id=f"np.{name}.1", pattern=f"'{name}_[a-z]{{30}}'")
        (folder / f"{name}.yml").write_text("rules:\n" + rule)
    result = import_rules([folder])
    assert (result.files, result.count) == (("one.yml", "two.yml"), 2)
    with pytest.raises(ConfigurationError, match="no rule file"):
        import_rules([tmp_path])


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.toml", "x = ", "is not TOML"),
        ("a.toml", "x = 1", r"has no \[\[rules\]\]"),
        ("a.toml", "rules = [1]", "not a table"),
        (
            "a.toml",
            "[[rules]]\nid = 'a'\nregex = 'b'\nkeywords = 'c'",
            "keywords is of another",
        ),
        ("a.yml", "rules: [", "is not YAML"),
        ("a.yml", "- 1", "no rule file"),
        ("a.yml", "a: 1", "has no rules"),
        ("a.yml", "rules: [!!python/object/apply:os.getcwd []]", "is not YAML"),
        (
            "a.yml",
            "a: &a [b]\nb: &b [*a, *a]\nrules: [{pattern: *b}]",
            "pattern is of another",
        ),
        ("a.yml", "rules: [{pattern: a, examples: [[1]]}]", "examples is of another type"),
        ("a.yml", "[" * 100_000, "is not YAML"),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, name: str, text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        imported(tmp_path, name, text)


def test_hostile_names_end_in_no_terminal_and_no_table(tmp_path: Path) -> None:
    text = "rules:\n" + yaml_rule(
        name=r'"\x1b[2J\n[[pattern]]"', id=r'"np.a\n[[pattern]]\x1b.1"', pattern="'ab_[a-z]{30}'"
    )
    result = imported(tmp_path, "r.yml", text.replace("'ab_[a-z]{30}'", "'(?=a)'"))
    written = write_patterns(result)
    assert "\x1b" not in written
    assert "\n[[pattern]]" not in written
    result = imported(tmp_path, "r.yml", text)
    assert tomllib.loads(write_patterns(result))["pattern"][0]["name"] == "\x1b[2J\n[[pattern]]"
