"""worker.Dockerfile, compose.yaml and .dockerignore, read as an engine reads them."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from tests.image.yaml_subset import read

ROOT = Path(__file__).parents[2]


@dataclass
class Stage:
    """From one FROM to the next: `steps` are (instruction, what stands behind it)."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for name, text in self.steps if name == instruction]

    def one(self, instruction: str) -> str:
        (text,) = self.all(instruction)
        return text

    @property
    def environment(self) -> dict[str, str]:
        pairs = [pair for text in self.all("ENV") for pair in shlex.split(text)]
        return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


@cache
def dockerfile() -> tuple[dict[str, str], tuple[Stage, ...]]:
    """The file's ARGs before its first stage, and its stages."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    text = (ROOT / "worker.Dockerfile").read_text("utf-8")
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(" ")
        assert re.fullmatch("[A-Z]+", name), line
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            stages.append(Stage(re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], base), stage))
        elif stages:
            stages[-1].steps.append((name, rest.strip()))
        else:
            assert name == "ARG", line
            key, _, value = rest.partition("=")
            arguments[key] = value
    return arguments, tuple(stages)


@cache
def compose() -> Any:
    return read((ROOT / "compose.yaml").read_text("utf-8"))


def command_of(service: str) -> list[str]:
    return [str(word) for word in compose()["services"][service]["command"]]


def health_of(service: str) -> list[str]:
    """The words of the service's health check, without CMD."""
    kind, *words = compose()["services"][service]["healthcheck"]["test"]
    assert kind == "CMD"
    return list(words)


def image_health() -> list[str]:
    """The words of the image's own health check."""
    _, _, words = dockerfile()[1][-1].one("HEALTHCHECK").partition("CMD ")
    return list(json.loads(words))


def is_sent(path: str) -> bool:
    """True when .dockerignore lets a file through to the engine; its last word counts."""
    place = PurePosixPath(path)
    sent = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.strip().removeprefix("!").rstrip("/")
        if not pattern or line.startswith("#"):
            continue
        names = [place, *place.parents[:-1]]
        if any(_matches(str(name), pattern) for name in names):
            sent = line.startswith("!")
    return sent


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("/"), pattern.split("/")
    if wanted[0] == "**":
        parts, wanted = parts[-len(wanted) + 1 :], wanted[1:]
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
