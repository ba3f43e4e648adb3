"""A token service over HTTP, and stores that ask it in every way there is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Ruleset
from scanner.model import Secret
from scanner.patterns.generate import generate
from scanner.stores.http import HttpTokenStore, open_http_store
from scanner.stores.memory import MemoryTokenStore
from tests.servers.token_service import TokenService

STATES = {
    "active": ["live"],
    "revoked": ["revoked"],
    "expired": ["lapsed"],
    "owner_disabled": ["suspended"],
    "never_issued": ["unknown"],
}
FIELDS = {"state": "status", "token_id": "id", "name": "label", "revoked_by": "revoked_by"}


def flat(prefix: str, value: Any) -> Iterator[str]:
    """TOML of nested values, one dotted key a line."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(f"{prefix}.{key}" if prefix else key, inner)
    else:
        yield f"{prefix} = {json.dumps(value)}"


def merged(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """`two` over `one`; None takes a key away."""
    result = dict(one)
    for key, value in two.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


class World:
    """A running service and the stores that were opened on it."""

    def __init__(self, folder: Path, matcher: Matcher, exit_stack: ExitStack) -> None:
        self.folder = folder
        self.bearer = token_hex(16)
        self.service = TokenService(MemoryTokenStore(), bearer=self.bearer)
        self.service.start()
        self._matcher = matcher
        self._exit = exit_stack
        exit_stack.callback(self.service.stop)

    def values(self, kind: str) -> dict[str, Any]:
        """The file's values for a kind: rfc, batch (mapped) or single (mapped)."""
        url = self.service.url
        known: dict[str, Any] = {
            "kind": "rfc" if kind == "rfc" else "mapped",
            "name": "acme",
            "allow_hosts": ["127.0.0.1"],
            "organisation": {"id": "acme", "name": "Acme", "contact": "security@acme.example"},
            "auth": {"kind": "bearer", "bearer_file": "bearer"},
            # Short, so that what fails does so soon; tests that need time say so.
            "limits": {"seconds": 5, "confirm_seconds": 0.3, "failures": 1_000},
        }
        if kind == "rfc":
            return {
                **known,
                "introspect": {"url": f"{url}/oauth/introspect"},
                "revoke": {"url": f"{url}/oauth/revoke"},
            }
        known |= {
            "fields": FIELDS,
            "states": STATES,
            "revoke": {
                "url": f"{url}/v1/tokens/{{token_id}}/revoke",
                "body": {"by": "{incident_id}"},
            },
            "confirm": {
                "url": f"{url}/v1/tokens/{{token_id}}",
                "item": "token",
                "missing": [404, 410],
            },
        }
        if kind == "single":
            find = {
                "url": f"{url}/v1/lookup-one", "body": {"token": "{token}"}, "item": "token",
                "missing": [404],
            }  # fmt: skip
        else:
            find = {
                "url": f"{url}/v1/lookup",
                "body": {"tokens": "{tokens}"},
                "batch": 50,
                "items": "results",
            }
        return {**known, "find": find}

    def write(self, values: dict[str, Any]) -> Path:
        (self.folder / "bearer").write_text(self.bearer + "\n")
        file = self.folder / "store.toml"
        file.write_text("\n".join(flat("", values)) + "\n")
        return file

    def open(self, kind: str, **changes: Any) -> HttpTokenStore:
        return self.open_file(self.write(merged(self.values(kind), changes)))

    def open_file(self, file: Path) -> HttpTokenStore:
        store = open_http_store(file, self._matcher)
        self._exit.callback(store.close)
        return store

    def targets(self) -> list[str]:
        """What was asked, as far as an address shows."""
        return [asked.target for asked in self.service.asked]


@pytest.fixture
def world(tmp_path: Path, matcher: Matcher) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, matcher, stack)


@pytest.fixture
def new_secret(ruleset: Ruleset) -> Callable[[], Secret]:
    pattern = next(p for p in ruleset.patterns if p.id == "npm-access-token")
    return lambda: generate(pattern)


def until(look: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Ask until there is something; what is waited for has a clock of its own."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found
