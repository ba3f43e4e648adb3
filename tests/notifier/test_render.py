from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from notifier.layout import columns, wrap
from notifier.notice import OUTCOMES, Notice
from notifier.render import Renderer

BuildLeak = Callable[..., Notice]
BIDI = "\u202e"


class Page(HTMLParser):
    """What a reader and a browser take from a mail's HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.attributes: list[str] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words += data


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


@pytest.mark.parametrize(
    ("outcome", "subject", "first_step", "said"),
    [
        (
            "revoked",
            "Revoked: your token “ci-deploy” was found in a public repository",
            "Find what used the token",
            "It no longer works",
        ),
        (
            "already_revoked",
            "Already revoked: your token “ci-deploy” was found in a public repository",
            "Check what the token was used for",
            "We changed nothing",
        ),
        (
            "still_active",
            "Action needed: your token “ci-deploy” is in a public repository and was not revoked",
            "Revoke the token now",
            "We did not revoke it",
        ),
        (
            "revocation_failed",
            "Act now: your token “ci-deploy” is in a public repository and could not be revoked",
            "Revoke the token now",
            "did not succeed",
        ),
    ],
)
def test_each_outcome_says_what_was_done_and_what_to_do(
    renderer: Renderer, leak: BuildLeak, outcome: str, subject: str, first_step: str, said: str
) -> None:
    at = "2026-11-24T14:03:13+00:00" if outcome == "revoked" else None
    mail = renderer.render(leak(outcome=outcome, revoked_at=at))
    page = Page(mail.html)
    assert mail.subject == subject
    assert f"1. {first_step}" in mail.text
    for words in (" ".join(mail.text.split()), " ".join(page.words.split())):
        assert said in words
        assert bool(re.search(r"\bRevoked:? ?24", words)) == (outcome == "revoked")
        for fact in (
            "ci-deploy",
            "Azure DevOps personal access token",
            "vso.code_write",
            "…q7Xd",
            "contoso/payments",
            "deploy/pipeline.yml",
            "line 14, column 23",
            "24 November 2026, 14:02:58 UTC",
            "Mia Berg",
            "inc-4711",
        ):
            assert fact in words
    assert page.tags.count("li") == len(re.findall(r"(?m)^\d+\. ", mail.text))


def test_the_contact_is_told_why_and_is_not_called_the_owner(
    renderer: Renderer, leak: BuildLeak
) -> None:
    disabled = renderer.render(
        leak(addressed_as="contact", recipient_name=None, owner_disabled=True)
    )
    ownerless = renderer.render(leak(addressed_as="contact", recipient_name=None))
    assert disabled.subject.startswith("Revoked: the token “ci-deploy” of Contoso was found")
    assert "account is disabled" in disabled.text
    assert "no owner we can write to" in ownerless.text
    for mail in (disabled, ownerless):
        assert mail.text.startswith("Hello,\n")
        assert "your token" not in mail.text.lower()
        assert "Hello,</p>" in mail.html


def test_links_are_the_issuers_or_the_commits(renderer: Renderer, leak: BuildLeak) -> None:
    notice = leak()
    links = [notice.context["help_url"], notice.context["places"][0]["url"]]
    mail = renderer.render(notice)
    assert Page(mail.html).links == links
    assert sorted(re.findall(r"https?://\S+", mail.text)) == sorted(links)


def test_nothing_optional_is_needed(renderer: Renderer, leak: BuildLeak) -> None:
    bare = {"path": None, "commit": None, "url": None, "pushed_at": None, "committed_at": None}
    mail = renderer.render(
        leak(
            bare | {"kind": "commit"}, recipient_name=None, help_url=None, scopes=[], more_places=1
        )
    )
    assert "in the commit message, line 14" in mail.text
    assert "And 1 more place." in mail.text
    assert "not recorded" in mail.text
    assert Page(mail.html).links == []
    for words in (mail.text, mail.html):
        assert "None" not in words


HOSTILE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"path": "javascript:alert(document.cookie)"}, {}),
    ({"path": "https://evil.com/sign-in"}, {}),
    ({"path": f"invoice{BIDI}gnp.exe"}, {}),
    ({"path": "a/" + "x." * 5_000 + "evil.com"}, {}),
    ({"path": "<img src=x onerror=alert(1)>"}, {}),
    ({"path": "new\r\nline\x00\x1b[31m\udcff"}, {}),
    ({"repository": "evil/www.evil.com", "kind": "https://evil.com", "path": None}, {}),
    ({}, {"token_name": "x\r\nBcc: mia@evil.com\r\n\r\nhttps://evil.com/"}),
    (
        {},
        {
            "token_name": '"><script>alert(1)</script>',
            "recipient_name": "evil.com\nhttp://evil.com",
        },
    ),
    ({}, {"organisation": "<b>evil.com</b>", "addressed_as": "contact"}),
    ({}, {"scopes": ["<script>alert(1)</script>", BIDI]}),
    ({}, {"token_name": "{{ 7 * 7 }}{% raw %}"}),
]


@pytest.mark.parametrize(("place", "context"), HOSTILE)
def test_strangers_text_makes_no_link_no_markup_and_no_header(
    renderer: Renderer, leak: BuildLeak, place: dict[str, Any], context: dict[str, Any]
) -> None:
    honest, notice = leak(), leak(place, **context)
    mail = renderer.render(notice)
    page, plain = Page(mail.html), Page(renderer.render(honest).html)
    assert mail.subject.isprintable()
    assert len(mail.subject) <= 200
    assert "\n" not in mail.subject
    assert set(page.tags) <= set(plain.tags)
    assert set(page.attributes) <= set(plain.attributes)
    assert page.links == plain.links
    for words in (mail.subject, mail.text, page.words):
        assert "evil.com" not in words
        assert "javascript:" not in words
        assert BIDI not in words
        assert "\x1b" not in words
        words.encode()
    assert "49" not in mail.subject
    assert len(mail.text) < 4_000


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("addressed_as", ["owner", "contact"])
def test_text_keeps_to_72_columns(
    renderer: Renderer, leak: BuildLeak, outcome: str, addressed_as: str
) -> None:
    mail = renderer.render(
        leak(
            {"path": "路径/" * 40 + "x" * 200},
            outcome=outcome,
            addressed_as=addressed_as,
            token_name="word " * 30,
            scopes=[f"vso.scope_number_{n}" for n in range(20)],
        )
    )
    for line in mail.text.splitlines():
        assert columns(line) <= 72 or "https://" in line
    assert "\n-- \n" in mail.text


def test_html_is_readable_everywhere_and_loads_nothing(renderer: Renderer, leak: BuildLeak) -> None:
    html = renderer.render(leak()).html
    page = Page(html)
    assert '<html lang="en">' in html
    assert page.tags.count("h1") == 1
    assert page.tags.count("main") == 1
    assert not {"img", "script", "link", "iframe", "form", "object"} & set(page.tags)
    assert "url(" not in html
    assert "@import" not in html
    assert "prefers-color-scheme: dark" in html
    assert "max-width: 480px" in html
    assert 'style="' in html
    assert 'scope="row"' in html


def test_no_template_asks_for_what_a_notice_must_not_hold() -> None:
    folder = Path(__file__).parents[2] / "notifier" / "templates"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 7
    for path in files:
        fields = set(re.findall(r"[{]{2}\s*([\w.]+)", path.read_text()))
        assert not {f for f in fields if re.search(r"secret|raw|plaintext", f)}
        assert "| safe" not in path.read_text()


def test_an_alarm_tells_the_operator_what_to_do(
    renderer: Renderer, alarm_json: dict[str, Any]
) -> None:
    mail = renderer.render(Notice.from_json(alarm_json))
    assert mail.subject == "Alarm: Revocation is frozen for the store builtin"
    words = " ".join(mail.text.split())
    assert "patrol policy set --release-store builtin" in words
    assert "24 November 2026, 14:03 UTC" in words
    assert "patrol policy set --release-store builtin" in Page(mail.html).words


def test_own_templates_replace_ours_one_by_one(tmp_path: Path, leak: BuildLeak) -> None:
    (tmp_path / "leak").mkdir()
    (tmp_path / "leak" / "subject.txt").write_text("Contoso: {{ token_name | inert }} leaked\n")
    notice = leak()
    own, ours = Renderer(tmp_path).render(notice), Renderer().render(notice)
    assert own.subject == "Contoso: ci-deploy leaked"
    assert own.text == ours.text
    assert own.html == ours.html


def test_an_own_template_that_is_wrong_fails_loudly(tmp_path: Path, leak: BuildLeak) -> None:
    (tmp_path / "leak").mkdir()
    (tmp_path / "leak" / "subject.txt").write_text("{{ tokn_name }}")
    with pytest.raises(UndefinedError):
        Renderer(tmp_path).render(leak())
    with pytest.raises(ValueError, match="does not exist"):
        Renderer(tmp_path / "nowhere")


def test_wrapping_hangs_and_leaves_links_whole() -> None:
    link = "https://github.com/" + "a" * 80
    assert wrap("Path:  one two three", 14) == "Path:  one two\n       three\n"
    assert wrap("1. one two three", 10) == "1. one two\n   three\n"
    assert wrap(f"see {link} now", 20).splitlines() == ["see", link, "now"]
    assert wrap("Path:  abcdefghij", 12).splitlines() == ["Path:  abcde", "       fghij"]
    assert wrap("a\n\n\n\nb") == "a\n\nb\n"
