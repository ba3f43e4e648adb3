"""The connect guard decides by the resolved address, at connect time."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from scanner.errors import ConnectFailedError, ConnectForbiddenError
from scanner.guard import ConnectGuard

PRIVATE = [
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1",  # noqa: S104
    "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::", "::7f00:1",
    "fec0::1", "2001:db8::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "140.82.112.3", "2606:4700::1111", "64:ff9b::808:808"]


def resolve(guard: ConnectGuard, host: str, port: int = 443) -> list[str]:
    return asyncio.run(guard.resolve(host, port))


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConnectForbiddenError, match="not public"):
        resolve(ConnectGuard(), address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert resolve(ConnectGuard(), address) == [address]


def test_a_name_is_judged_by_its_address() -> None:
    with pytest.raises(ConnectForbiddenError, match="not public"):
        resolve(ConnectGuard(), "localhost")
    assert resolve(ConnectGuard(["localhost"]), "LocalHost")
    assert resolve(ConnectGuard(["127.0.0.0/8", "::1"]), "localhost")


@pytest.mark.parametrize("shorthand", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1"])
def test_other_spellings_of_loopback(shorthand: str) -> None:
    with pytest.raises((ConnectForbiddenError, ConnectFailedError)):
        resolve(ConnectGuard(), shorthand)


def test_an_entry_with_a_port_allows_that_port_only() -> None:
    guard = ConnectGuard(["localhost:8080", "[::1]:99"])
    assert resolve(guard, "localhost", 8080)
    assert resolve(guard, "::1", 99)
    for host, port in (("localhost", 8081), ("::1", 98)):
        with pytest.raises(ConnectForbiddenError, match="not public"):
            resolve(guard, host, port)


def test_networks_and_nonsense() -> None:
    assert resolve(ConnectGuard(["10.1.0.0/16"]), "10.1.2.3") == ["10.1.2.3"]
    with pytest.raises(ConnectForbiddenError, match="not public"):
        resolve(ConnectGuard(["10.1.0.0/16"]), "10.2.2.3")
    with pytest.raises(ValueError, match="neither"):
        ConnectGuard(["10.1.0.0/99"])


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.git", "ssh://example.com/a", "file:///etc/passwd", "ext::sh -c id",
        "https://user:word@example.com/a", "https://user@example.com/a", "https:///a", "",
        "https://example.com:port/a", "https://[::1/a", "https://example.com/a?b", "//a/b",
        "https://example.com/a#b",
    ],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConnectForbiddenError) as caught:
        ConnectGuard().check_url(url)
    assert "word" not in str(caught.value)


def test_plain_http_is_for_named_hosts() -> None:
    guard = ConnectGuard(["intranet", "127.0.0.0/8"])
    guard.check_url("https://example.com/a.git")
    guard.check_url("http://intranet/a.git")
    guard.check_url("http://127.0.0.1:8080/a.git")
    with pytest.raises(ConnectForbiddenError, match="https"):
        guard.check_url("http://example.com/a.git")
    ConnectGuard(https_only=False).check_url("http://example.com/a.git")


def test_the_transport_itself_is_guarded() -> None:
    async def run() -> None:
        async with httpx2.AsyncClient(transport=ConnectGuard().transport()) as client:
            await client.get("https://127.0.0.1:1/")

    with pytest.raises(ConnectForbiddenError, match="not public"):
        asyncio.run(run())


def test_a_query_is_for_who_asks_for_it() -> None:
    ConnectGuard().check_url("https://example.com/a?version=7.1", has_query=True)
    with pytest.raises(ConnectForbiddenError, match="fragment"):
        ConnectGuard().check_url("https://example.com/a?b#c", has_query=True)


def test_a_refusal_says_where_the_host_is_allowed() -> None:
    guard = ConnectGuard(named_in="store.toml")
    for refused in (lambda: guard.check_url("http://a.example"), lambda: resolve(guard, "::1")):
        with pytest.raises(ConnectForbiddenError, match=r"name it in store\.toml"):
            refused()
