from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.inert import inert, shown


@pytest.mark.parametrize(
    ("hostile", "safe"),
    [
        ("https://evil.example/login", "https[:]//evil.example/login"),
        ("https://evil.com/login", "https[:]//evil[.]com/login"),
        ("www.evil.com", "www[.]evil[.]com"),
        ("evil.com.yml", "evil[.]com.yml"),
        ("evil。com", "evil[.]com"),
        ("javascript:alert(1)", "javascript[:]alert(1)"),
        ("mailto:mia@evil.com", "mailto[:]mia[@]evil[.]com"),
        ("tel:555", "tel[:]555"),
        (r"\\host\share", r"[\]\host\share"),
        ("10.0.0.1/login", "10[.]0[.]0[.]1/login"),
        ("src/main.py", "src/main[.]py"),  # .py is a top-level domain
        ("a\nBcc: x", "a\\nBcc: x"),
        ("invoice\u202egnp.exe", "invoice\\u202egnp[.]exe"),
        ("pay\u200bpal", "pay\\u200bpal"),
        ("bad\udcff", "bad\\udcff"),
        ("a\u0301\u0301\u0301\u0301b", "a\u0301\u0301b"),
    ],
)
def test_hostile_text_is_defanged(hostile: str, safe: str) -> None:
    assert inert(hostile) == safe


@pytest.mark.parametrize(
    "plain",
    [
        "ci-deploy",
        "contoso/payments",
        "deploy/pipeline.yml",
        ".github/workflows/release.yaml",
        "packages/@scope/ui/.env",
        "config/appsettings.json",
        "v1.2.3",
        "Zoë: laptop",
        "設定/トークン.txt",
    ],
)
def test_honest_text_stays_as_it_is(plain: str) -> None:
    assert inert(plain) == plain


def test_a_long_path_keeps_its_beginning_and_its_end() -> None:
    short = inert("deploy/" + "x" * 10_000 + "/keys.env")
    assert len(short) == 120
    assert short.startswith("deploy/")
    assert short.endswith("/keys.env")
    assert "…" in short


def test_what_is_only_shown_keeps_its_dots() -> None:
    assert shown("vso.code_write\x1b[31m") == "vso.code_write\\x1b[31m"


@given(st.text(alphabet="ab.。:/@\\\n\u202e \u0301…", max_size=60), st.integers(8, 40))
def test_nothing_linkable_is_left(text: str, limit: int) -> None:
    safe = inert(text, limit)
    assert len(safe) <= limit
    assert safe.isprintable()
    assert not re.search(r"\w\.[ab]", safe)
    assert "://" not in safe or not re.search(r"\w://", safe)
    assert not re.search(r"[^\s/]@[ab]", safe) or "[@]" in safe
