"""From a notice to subject, text and HTML.

Names and paths are chosen by strangers: they are capped, control and bidi characters become
escapes, and whatever a mail client would turn into a link is broken up. The only links are ours.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

import css_inline
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined, select_autoescape

from notifier.notice import Notice

_LONGEST = 120
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def defang(value: object) -> str:
    """Return hostile text as one short line that no mail client makes a link of."""
    text = str(value)
    shown = "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _HIDDEN
        else character
        for character in text[: _LONGEST + 1]
    )
    if len(text) > _LONGEST or len(shown) > _LONGEST:
        shown = shown[: _LONGEST - 1] + "…"
    return shown.replace("://", "[:]//").replace("www.", "www[.]").replace("@", "[at]")


def moment(value: str | None) -> str:
    """Return an ISO time as "24 Nov 2026 03:12:09 UTC"-like text; "unknown" for None."""
    return "unknown" if value is None else value[:19].replace("T", " ") + " UTC"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A mail's three parts."""

    subject: str
    text: str
    html: str


class Renderer:
    """Renders notices; a file of the same name below `extra_templates` replaces the built-in."""

    def __init__(self, extra_templates: Path | None = None) -> None:
        folders = [extra_templates] if extra_templates else []
        loaders = [FileSystemLoader(f) for f in (*folders, Path(__file__).parent / "templates")]
        self._environment = Environment(
            loader=ChoiceLoader(loaders),
            undefined=StrictUndefined,
            autoescape=select_autoescape(["html"]),
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(defang=defang, moment=moment)
        self._inliner = css_inline.CSSInliner(load_remote_stylesheets=False, keep_style_tags=True)

    def render(self, notice: Notice) -> Rendered:
        """Return the notice's subject (one line), text and HTML."""
        parts = {
            name: self._environment.get_template(f"{notice.kind}/{name}").render(notice.context)
            for name in ("subject.txt", "body.txt", "body.html")
        }
        subject = " ".join(parts["subject.txt"].split())
        return Rendered(subject, parts["body.txt"], self._inliner.inline(parts["body.html"]))
