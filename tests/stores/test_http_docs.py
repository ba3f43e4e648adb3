"""docs/your-token-service.md: its files are read as they stand and run against a real service."""

from __future__ import annotations

import hashlib
import re
import ssl
import tomllib
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from scanner.model import Secret, Validity
from scanner.prove import prove
from scanner.stores.http_config import Limits
from tests.servers.certificates import make_certificates

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "your-token-service.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
HOSTS = re.compile(r"https://\w+\.acme\.example")


def let_in(world, values: dict[str, Any]) -> None:
    """Make the service want what the example shows, and write the files it names."""
    word = token_hex(16)
    auth = values["auth"]
    world.service.bearer = None
    match auth["kind"]:
        case "bearer":
            world.service.bearer = word
            (world.folder / auth["bearer_file"]).write_text(word)
        case "basic":
            world.service.client = (auth["client_id"], word)
            (world.folder / auth["client_secret_file"]).write_text(word)
        case "hmac":
            world.service.hmac_keys = {auth["key_id"]: word.encode()}
            (world.folder / auth["key_file"]).write_text(word)
        case "none":
            made = make_certificates(world.folder)
            assert {path.name for path in vars(made).values()} >= set(values["tls"].values())
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(made.server, made.server_key)
            context.load_verify_locations(made.authority)
            context.verify_mode = ssl.CERT_REQUIRED
            world.service.stop()
            world.service.tls = context
            world.service.start()


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_works(world, new_secret: Callable[[], Secret], example: str) -> None:
    let_in(world, tomllib.loads(example))
    file = world.folder / "store.toml"
    # The one thing a reader must change.
    file.write_text('allow_hosts = ["127.0.0.1"]\n' + HOSTS.sub(world.service.url, example))
    store = world.open_file(file)
    live, dead, unknown = (new_secret() for _ in range(3))
    token_id = world.service.issue(live, name="deploy", owner_email="ada@acme.example")
    world.service.revoke_by_hand(world.service.issue(dead))
    answers = prove(store, [live, dead, unknown])
    assert answers[0].validity is Validity.ACTIVE
    assert answers[0].token.token_id == token_id
    assert {answers[1].validity, answers[2].validity} <= {
        Validity.REVOKED, Validity.INACTIVE, Validity.NEVER_ISSUED,
    }  # fmt: skip
    assert store.revoke(token_id, "incident-1", secret=live) is True
    assert prove(store, [live])[0].validity in (Validity.REVOKED, Validity.INACTIVE)


def test_there_is_an_example_of_each_kind() -> None:
    values = [tomllib.loads(example) for example in EXAMPLES]
    assert {value["kind"] for value in values} == {"rfc", "mapped"}
    assert {value["auth"]["kind"] for value in values} == {"bearer", "basic", "hmac", "none"}


def test_the_table_of_limits_is_whole() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `([\d.]+)` \|", PAGE, re.MULTILINE))
    assert rows == {name: str(field.default) for name, field in Limits.model_fields.items()}


def test_the_lines_that_are_signed_are_those_that_are_shown() -> None:
    body = re.search(r"the body `(\{.*?\})`", PAGE)
    assert body is not None
    assert f"    {hashlib.sha256(body[1].encode()).hexdigest()}\n" in PAGE
