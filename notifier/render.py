"""Words to mail: a notice and its templates become subject, plain text and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import css_inline
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined, select_autoescape

from notifier.inert import inert, shown
from notifier.layout import when, wrap
from notifier.notice import Notice

_TEMPLATES = Path(__file__).parent / "templates"
_LONGEST_SUBJECT = 200  # characters


@dataclass(frozen=True, slots=True)
class Rendered:
    """A mail's words: `subject` is one line, `text` at most 72 columns, `html` a whole document
    whose styles are inlined and which loads nothing."""

    subject: str
    text: str
    html: str


class Renderer:
    """Renders notices from `notifier/templates/<kind>/{subject.txt,body.txt,body.html}`.

    `extra_templates` is a directory of the same layout; each file in it replaces ours of the same
    name, one by one. Templates see the notice's context, `kind`, and the filters `inert`
    (stranger's text: always use it for names, paths and repositories), `shown` and `when`. Raises
    `ValueError` for a directory that is not there; rendering raises Jinja2's `TemplateError` for a
    template that is wrong.
    """

    def __init__(self, extra_templates: Path | None = None) -> None:
        if extra_templates is not None and not extra_templates.is_dir():
            raise ValueError(f"The template directory {extra_templates} does not exist.")
        folders = [*([extra_templates] if extra_templates else []), _TEMPLATES]
        self._environment = Environment(
            loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
            autoescape=select_autoescape(("html",), default=False, default_for_string=False),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(inert=inert, shown=shown, when=when)
        # The <style> element goes but for its media rules; nothing is ever fetched.
        self._inliner = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)

    def render(self, notice: Notice) -> Rendered:
        """Return the mail's words for `notice`."""
        subject = " ".join(self._fill(notice, "subject.txt").split())
        return Rendered(
            subject=shown(subject, _LONGEST_SUBJECT),
            text=wrap(self._fill(notice, "body.txt")),
            html=self._inliner.inline(self._fill(notice, "body.html")),
        )

    def _fill(self, notice: Notice, name: str) -> str:
        template = self._environment.get_template(f"{notice.kind}/{name}")
        return template.render(**notice.context, kind=notice.kind)
