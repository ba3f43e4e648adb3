"""Reading the file that describes a token service; a mistake is one sentence that names the key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scanner.errors import ConfigurationError
from scanner.stores.http_config import RfcService
from scanner.stores.http_mapping import MappedService

_PLACE = re.compile(r"\(at (line \d+, column \d+)\)")

HttpService = RfcService | MappedService
_KINDS: dict[str, type[RfcService | MappedService]] = {"rfc": RfcService, "mapped": MappedService}


def read_service(path: Path) -> HttpService:
    """Read a store's TOML file. Errors: `ConfigurationError`, one sentence that names the key and
    never what is set there: a secret may stand where none belongs."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not text in UTF-8.") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        raise ConfigurationError(
            f"{path} is not TOML{f' ({place[1]})' if place else ''}."
        ) from None
    model = _KINDS.get(str(values.get("kind")))
    if model is None:
        raise ConfigurationError(f"{path}: kind must be one of {', '.join(map(repr, _KINDS))}.")
    try:
        return model.model_validate(values, context={"folder": path.parent})
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {_sentence(error)}.") from None


_SAID = {"missing": "is missing", "extra_forbidden": "is no key that is known here"}


def _sentence(error: ValidationError) -> str:
    first: Any = error.errors(include_input=False, include_url=False)[0]
    place = list(map(str, first["loc"]))
    if place[:1] == ["auth"] and len(place) > 2:
        del place[1]  # the kind, which pydantic puts between
    said = first["msg"].removeprefix("Value error, ")
    said = _SAID.get(first["type"], said[:1].lower() + said[1:])
    if first["type"] in ("union_tag_not_found", "union_tag_invalid"):
        place, said = ["auth", "kind"], "must be 'none', 'bearer', 'basic' or 'hmac'"
    key = ".".join(place)
    if first["type"] in _SAID:
        return f"{key} {said}"
    return f"{key}: {said}" if key else said
