"""Request templates and paths into answers: how a service's own JSON is written and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

_NAME = re.compile(r"\{([a-z_]+)\}")
ABSENT = object()  # what a path that leads nowhere may read as


def names_in(template: Any) -> set[str]:
    """Return the names in braces in every text of a template."""
    if isinstance(template, str):
        return set(_NAME.findall(template))
    if isinstance(template, Mapping):
        return {name for value in template.values() for name in names_in(value)}
    if isinstance(template, Sequence):
        return {name for value in template for name in names_in(value)}
    return set()


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Return the template with its names replaced. A text that is nothing but a name becomes that
    value, whatever it is, a list too; a name inside a longer text becomes text."""
    if isinstance(template, str):
        whole = _NAME.fullmatch(template)
        if whole:
            return values[whole[1]]
        return _NAME.sub(lambda name: str(values[name[1]]), template)
    if isinstance(template, Mapping):
        return {key: fill(value, values) for key, value in template.items()}
    if isinstance(template, Sequence):
        return [fill(value, values) for value in template]
    return template


def fill_url(template: str, values: Mapping[str, str]) -> str:
    """Return the address with its names replaced, each escaped so that it stays one segment."""
    return _NAME.sub(lambda name: quote(values[name[1]], safe=""), template)


def getter(path: str | None, absent: Any = None) -> Callable[[Any], Any]:
    """Return what reads a path from a JSON value: "a.b.0", or "/a.b/0" (RFC 6901) where names hold
    dots; "" is the value itself. What is not there reads as `absent`, and so does no path."""
    if path is None:
        return lambda _value: absent
    if path.startswith("/"):
        steps = [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")]
    else:
        steps = path.split(".") if path else []

    def get(value: Any) -> Any:
        for step in steps:
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                return absent
        return value

    return get
