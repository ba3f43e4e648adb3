"""Who we are to a service: bearer, client credentials, signatures, certificates; and whom we
trust."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scanner.errors import ConfigurationError, StoreUnavailableError
from scanner.model import Secret, Validity
from scanner.stores.http_auth import Signer, signature
from scanner.stores.http_config import HmacAuth
from tests.servers.certificates import Certificates, make_certificates

NewSecret = Callable[[], Secret]
ROOT = Path(__file__).resolve().parents[2]
KEY = "0123456789abcdefghijklmnopqrstuv"  # of the documented example, and of nothing else


def asks(store: Any, secret: Secret) -> Validity:
    return store.find([secret])[0].validity


def test_the_documented_signature() -> None:
    """The golden vector that docs/your-token-service.md shows; made by openssl."""
    body = b'{"tokens": ["example"]}'
    nonce = "00112233445566778899aabbccddeeff"
    made = signature(KEY.encode(), 1_700_000_000, nonce, "POST", "/v1/lookup?v=2", body)
    assert made == "v1=445a616c0bc9d05921ac0b2bea2014e259dc22400e2a9bf5275b0390727eb26e"
    page = (ROOT / "docs" / "your-token-service.md").read_text("utf-8")
    assert all(part in page for part in (made, KEY, nonce, "1700000000", body.decode()))


def test_a_signature_covers_all_it_says(tmp_path: Any) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    auth = HmacAuth(
        kind="hmac",
        key_id="patrol-1",
        key_file=tmp_path / "key",
        nonce_header="N",
        signature_header="S",
    )
    signer = Signer(auth, clock=lambda: 1_700_000_000.9, nonce=lambda: "n" * 32)
    headers = signer.headers("POST", "https://h.example/a%2Fb?c=d", b"body")
    right = signature(KEY.encode(), 1_700_000_000, "n" * 32, "POST", "/a%2Fb?c=d", b"body")
    assert headers == {
        "X-Patrol-Key": "patrol-1",
        "X-Patrol-Timestamp": "1700000000",
        "N": "n" * 32,
        "S": right,
    }
    base: tuple[Any, ...] = (KEY.encode(), 1, "n", "POST", "/a", b"b")
    others: tuple[Any, ...] = (b"k", 2, "m", "PUT", "/b", b"c")
    changed = {signature(*(*base[:at], other, *base[at + 1 :])) for at, other in enumerate(others)}
    assert len(changed | {signature(*base)}) == 7


def test_a_signed_service_takes_us_and_nobody_else(world, new_secret: NewSecret) -> None:
    (world.folder / "key").write_text(KEY)
    world.service.bearer, world.service.hmac_keys = None, {"patrol-1": KEY.encode()}
    auth = {"kind": "hmac", "key_id": "patrol-1", "key_file": "key", "bearer_file": None}
    for kind in ("rfc", "batch", "single"):
        assert asks(world.open(kind, auth=auth), new_secret()) in (
            Validity.INACTIVE, Validity.NEVER_ISSUED,
        )  # fmt: skip
    secret = new_secret()
    token_id = world.service.issue(secret)
    assert world.open("single", auth=auth).revoke(token_id, "incident-1") is True
    nonces = [asked.headers["x-patrol-nonce"] for asked in world.service.asked]
    assert len(set(nonces)) == len(nonces) == 5
    (world.folder / "key").write_text(KEY[::-1])
    with pytest.raises(StoreUnavailableError, match="sign in"):
        asks(world.open("rfc", auth=auth), new_secret())


def test_each_attempt_is_signed_anew(world, new_secret: NewSecret) -> None:
    """A service that remembers nonces would take a second attempt for a replay."""
    (world.folder / "key").write_text(KEY)
    world.service.bearer, world.service.hmac_keys = None, {"patrol-1": KEY.encode()}
    auth = {"kind": "hmac", "key_id": "patrol-1", "key_file": "key", "bearer_file": None}

    def checked_and_broken(call: Any) -> None:
        assert world.service._may(call.asked)
        call.answer(503)

    world.service.faults = [checked_and_broken]
    assert asks(world.open("rfc", auth=auth), new_secret()) is Validity.INACTIVE


def test_client_credentials_are_escaped(world, new_secret: NewSecret) -> None:
    word = "p@ss w%rd:+/0123456789"
    (world.folder / "word").write_text(word)
    world.service.bearer, world.service.client = None, ("patrol:1 é", word)
    auth = {"kind": "basic", "client_id": "patrol:1 é", "client_secret_file": "word"}
    store = world.open("rfc", auth={**auth, "bearer_file": None})
    assert asks(store, new_secret()) is Validity.INACTIVE


def test_an_api_key_in_a_header_of_its_own(world, new_secret: NewSecret) -> None:
    world.service.bearer = None
    store = world.open("rfc", auth={"header": "X-Api-Key", "scheme": ""})
    asks(store, new_secret())
    headers = world.service.asked[0].headers
    assert headers["x-api-key"] == world.bearer
    assert "authorization" not in headers


def test_a_bearer_token_rotates_under_a_running_service(world, new_secret: NewSecret) -> None:
    store = world.open("rfc")
    assert asks(store, new_secret()) is Validity.INACTIVE
    world.service.bearer = "another-bearer-0123456789"
    with pytest.raises(StoreUnavailableError, match=r"sign in \(HTTP 401\)") as caught:
        asks(store, new_secret())
    assert world.bearer not in str(caught.value)
    (world.folder / "bearer").write_text("another-bearer-0123456789\n")
    assert asks(store, new_secret()) is Validity.INACTIVE
    (world.folder / "bearer").unlink()
    with pytest.raises(StoreUnavailableError, match="bearer cannot be read"):
        asks(store, new_secret())


@pytest.mark.parametrize("weak", ["changeme", "secret-secret-secret", "hush", "a" * 40, ""])
def test_an_example_is_no_secret(world, weak: str) -> None:
    file = world.write(world.values("rfc"))
    world.bearer = weak
    with pytest.raises(ConfigurationError, match=r"store\.toml: auth\.bearer_file: ") as caught:
        world.open("rfc")
    assert str(file) in str(caught.value)
    assert not weak or weak not in str(caught.value).replace("openssl rand", "")


def test_a_secret_of_two_lines_is_none(world) -> None:
    world.bearer = "0123456789abcdef\r\nX-Admin: 1"
    with pytest.raises(ConfigurationError, match="is not one line of text"):
        world.open("rfc")


@pytest.fixture
def certificates(tmp_path: Any) -> Certificates:
    (tmp_path / "certificates").mkdir()
    return make_certificates(tmp_path / "certificates")


def over_tls(world, certificates: Certificates, *, wants_client: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)
    if wants_client:
        context.load_verify_locations(certificates.authority)
        context.verify_mode = ssl.CERT_REQUIRED
    world.service.stop()
    world.service.tls, world.service.bearer = context, None
    world.service.start()


def tls(certificates: Certificates, *names: str) -> dict[str, Any]:
    files = dataclasses.asdict(certificates)
    return {key: str(files[name]) for key, name in (name.split("=") for name in names)}


NO_AUTH = {"kind": "none", "bearer_file": None}
CLIENT = ("client_cert_file=client", "client_key_file=client_key")


def test_a_service_that_wants_our_certificate(world, certificates, new_secret: NewSecret) -> None:
    over_tls(world, certificates, wants_client=True)
    store = world.open("rfc", auth=NO_AUTH, tls=tls(certificates, "ca_file=authority", *CLIENT))
    assert asks(store, new_secret()) is Validity.INACTIVE
    without = world.open(
        "rfc", auth=NO_AUTH, tls=tls(certificates, "ca_file=authority"), limits={"attempts": 1}
    )
    with pytest.raises(StoreUnavailableError, match="did not answer"):
        asks(without, new_secret())
    assert len(world.service.asked) == 1


@pytest.mark.parametrize("hosts", [["127.0.0.1"], ["127.0.0.0/8"]])
def test_an_authority_nobody_told_us_to_trust(
    world, certificates, new_secret: NewSecret, hosts: list[str]
) -> None:
    """What may be private, and even plain, is still checked where it is not plain."""
    over_tls(world, certificates, wants_client=False)
    store = world.open("rfc", auth=NO_AUTH, allow_hosts=hosts, limits={"attempts": 1})
    with pytest.raises(StoreUnavailableError, match="ConnectError"):
        asks(store, new_secret())
    assert world.service.asked == []


def test_a_certificate_of_another_host(world, certificates, new_secret: NewSecret) -> None:
    over_tls(world, certificates, wants_client=False)
    url = world.service.url.replace("127.0.0.1", "127.0.0.2")
    store = world.open(
        "rfc",
        auth=NO_AUTH,
        allow_hosts=["127.0.0.0/8"],
        tls=tls(certificates, "ca_file=authority"),
        limits={"attempts": 1},
        introspect={"url": f"{url}/oauth/introspect"},
    )
    with pytest.raises(StoreUnavailableError):
        asks(store, new_secret())
    assert world.service.asked == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["ca_file=client_key"], "tls.ca_file: .* holds no certificates"),
        (["client_cert_file=client", "client_key_file=server_key"], "no certificate and its key"),
        (["client_cert_file=client_key", "client_key_file=client_key"], "no certificate and"),
    ],
)
def test_files_that_are_no_certificates(world, certificates, given: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        world.open("rfc", tls=tls(certificates, *given))


def test_a_private_address_must_be_named(world, certificates, new_secret: NewSecret) -> None:
    over_tls(world, certificates, wants_client=False)
    store = world.open(
        "rfc", auth=NO_AUTH, allow_hosts=[], tls=tls(certificates, "ca_file=authority")
    )
    with pytest.raises(StoreUnavailableError, match=r"not public; name it in allow_hosts of store"):
        asks(store, new_secret())
    assert world.service.asked == []


def test_plain_http_must_be_named(world) -> None:
    with pytest.raises(ConfigurationError, match=r"introspect\.url: Only https is allowed; name"):
        world.open("rfc", allow_hosts=[])
