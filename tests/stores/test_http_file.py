"""The store's file: a mistake in it is one sentence that names the key and shows no value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from scanner.errors import ConfigurationError
from tests.stores.conftest import merged

SPY = "spy-9b7e-in-the-wrong-place"


def refusal(world, kind: str, changes: dict[str, Any]) -> str:
    file = world.write(merged(world.values(kind), changes))
    with pytest.raises(ConfigurationError) as caught:
        world.open_file(file)
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert said.endswith(".")
    assert "\n" not in said
    assert SPY not in said
    return said.removeprefix(f"{file}: ")


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("rfc", {"kind": SPY}, "kind must be one of 'rfc', 'mapped'"),
        ("rfc", {"kind": None}, "kind must be one of"),
        ("rfc", {"name": None}, "name is missing"),
        ("rfc", {"name": f"{SPY} "}, "name: string should match"),
        ("rfc", {"name": "built-in"}, "name: 'built-in' is taken"),
        ("rfc", {"auth": None}, "auth is missing"),
        ("rfc", {"auth": {"kind": None}}, "auth.kind: must be 'none', 'bearer', 'basic' or 'hmac'"),
        ("rfc", {"auth": {"kind": SPY}}, "auth.kind: must be"),
        ("rfc", {"auth": {"bearer_file": None}}, "auth.bearer_file is missing"),
        ("rfc", {"auth": {"bearer": SPY}}, "auth.bearer is no key"),
        ("rfc", {"auth": {"header": f"{SPY}: x"}}, "auth.header: string should match"),
        ("rfc", {"auth": {"bearer_file": "not-there"}}, "auth.bearer_file: the file .* cannot"),
        ("rfc", {"secret": SPY}, "secret is no key"),
        ("rfc", {"limits": {"seconds": 0}}, "limits.seconds: input should be greater than 0"),
        ("rfc", {"limits": {"parallel": SPY}}, "limits.parallel: input should be a valid integer"),
        ("rfc", {"tls": {"client_cert_file": SPY}}, "tls: client_cert_file and client_key_file go"),
        ("rfc", {"introspect": {"url": None}}, "introspect.url is missing"),
        ("rfc", {"introspect": {"url": "ftp://127.0.0.1/"}}, "introspect.url: Only https"),
        ("rfc", {"introspect": {"url": f"https://a:{SPY}@b.example/"}}, "introspect.url: .*creden"),
        ("rfc", {"revoke": {"url": "nonsense"}}, "revoke.url: The address must name a host"),
        ("rfc", {"revoke": {"form": {"token": SPY}}}, "revoke.form.token is what is asked"),
        ("rfc", {"allow_hosts": ["10.0.0.0/99"]}, "allow_hosts: .* neither a host nor a network"),
        ("rfc", {"organisation": {"id": None}}, "organisation.id is missing, and fields.org"),
        ("rfc", {"organisation": {"contact": SPY}}, "organisation.contact: string should match"),
        ("rfc", {"fields": {"state": "x"}}, "fields.state is no key"),
        ("rfc", {"fields": {"times": SPY}}, "fields.times: input should be 'seconds' or"),
        ("batch", {"find": {"body": {"x": "{tokenz}"}}}, 'find: body needs "{token}"'),
        ("batch", {"find": {"body": {"a": "{token}", "b": "{tokens}"}}}, "find: body needs"),
        ("batch", {"find": {"each": {"a": 1}}}, 'find: each needs "{token}"'),
        ("batch", {"find": {"batch": 0}}, "find.batch: input should be greater than or equal to 1"),
        ("batch", {"find": {"omits_unknown": True}}, "find: omits_unknown needs echo"),
        ("single", {"find": {"batch": 5}}, 'find: batch is for a body with "{tokens}"'),
        ("single", {"find": {"missing": [500]}}, "find.missing.0: input should be less than"),
        ("single", {"find": {"url": "https://h.example/{token}"}}, "find.url: a token must not"),
        ("single", {"find": {"url": "https://h.example/{x}"}}, "find.url has no placeholders"),
        ("single", {"revoke": {"url": "https://h.example/{token}"}}, "revoke.url: a token must"),
        ("single", {"revoke": {"body": {"by": "{who}"}}}, "revoke: nothing is known .* for {who}"),
        ("single", {"revoke": {"url": "https://h.example/"}}, 'revoke: url or body needs'),
        ("single", {"revoke": {"body": None}}, 'fields.revoked_by needs "{incident_id}" in revoke'),
        ("single", {"revoke": {"method": "GET"}}, "revoke.method: input should be 'POST'"),
        ("single", {"confirm": None}, "confirm is missing: every revocation is looked up again"),
        ("single", {"confirm": {"url": "https://h.example/{token}"}}, 'confirm: url or body needs'),
        ("single", {"confirm": {"body": {"x": 1}}}, "confirm: a GET has no body"),
        ("single", {"states": {"active": []}}, "states.active: tuple should have at least 1"),
        ("single", {"states": {"revoked": ["live"]}}, "states: one spelling cannot mean"),
        ("single", {"states": {"revoked": [1.5]}}, "states: a state is a text, a number or true"),
        ("single", {"states": {"revoked": None}}, "states: revoked or inactive is missing"),
        ("single", {"states": {"lost": ["x"]}}, "states.lost is no key"),
        ("single", {"fields": {"token_id": None}}, "fields.token_id is missing"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(world, kind: str, changes: dict[str, Any], said: str) -> None:
    assert re.match(said, refusal(world, kind, changes))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'kind = "rfc"\nbearer = ' + SPY.encode(), r"is not TOML \(line 2, column 10\)\."),
        (b'kind = "' + SPY.encode(), "is not TOML"),
        (b"\xff" + SPY.encode(), "is not text in UTF-8"),
        (b"", "kind must be one of"),
    ],
)
def test_a_file_that_is_none(world, content: bytes, said: str) -> None:
    file = world.write(world.values("rfc"))
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=said) as caught:
        world.open_file(file)
    assert SPY not in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there(world, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml cannot be read \(No such file"):
        world.open_file(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigurationError, match=r"cannot be read \(Is a directory"):
        world.open_file(tmp_path)


def test_paths_begin_at_the_files_folder(world, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert world.open("rfc").name == "acme"
    (tmp_path / "elsewhere" / "own").write_text(world.bearer)
    absolute = str(tmp_path / "elsewhere" / "own")
    assert world.open("rfc", auth={"bearer_file": absolute}).name == "acme"


def test_what_a_store_declares(world) -> None:
    declared = {
        kind: world.open(kind, is_replicated=kind == "batch").abilities
        for kind in ("rfc", "batch", "single")
    }
    shown = {
        kind: (a.tells_reason, a.revokes_by, a.keeps_cause, a.batch, a.is_replicated)
        for kind, a in declared.items()
    }
    assert shown == {
        "rfc": (False, "secret", False, 1, False),
        "batch": (True, "id", True, 50, True),
        "single": (True, "id", True, 1, False),
    }
    vague = world.open("single", states={"inactive": ["dead"]}, fields={"revoked_by": None})
    assert (vague.abilities.tells_reason, vague.abilities.keeps_cause) == (False, False)
