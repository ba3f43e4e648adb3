"""The one connect guard: where a connection may go is decided at the moment it is made.

It stands before repositories and token stores alike.

A name is resolved once, every address it has is checked, and the connection goes to a checked
address, so that a second answer from DNS cannot lead elsewhere. TLS still verifies the name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpcore2
import httpx2

from scanner.errors import ConnectFailedError, ConnectForbiddenError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PORTS = {"https": 443, "http": 80}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # carries an IPv4 address in its last four bytes
# Ranges that Python calls global although they tunnel to, or stand for, something else.
_NEVER = (
    ipaddress.IPv6Network("2002::/16"),  # 6to4
    ipaddress.IPv6Network("2001::/32"),  # Teredo
    ipaddress.IPv6Network("::/96"),  # IPv4-compatible, deprecated
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # local-use NAT64
    ipaddress.IPv6Network("fec0::/10"),  # site-local, deprecated
    ipaddress.IPv4Network("192.88.99.0/24"),  # 6to4 relays
)


class ConnectGuard:
    """Allows https to public addresses, and what `allowed` names.

    An entry is "host", "host:port", an address or a network such as "10.1.0.0/16"; what it names
    may be private and may speak plain http. `https_only=False` allows http to public hosts too.
    `named_in` says in refusals where a host is allowed. Errors: `ValueError` for an entry that is
    none of these.
    """

    def __init__(
        self,
        allowed: Collection[str] = (),
        https_only: bool = True,
        named_in: str = "PATROL_ALLOW_HOSTS",
    ) -> None:
        self._https_only = https_only
        self._remedy = f"name it in {named_in}"
        self._networks: list[_Network] = []
        self._names: set[str] = set()
        for entry in (one.strip().lower() for one in allowed):
            try:
                self._networks.append(ipaddress.ip_network(entry.strip("[]")))
            except ValueError:
                if "/" in entry:
                    raise ValueError(f"{entry!r} is neither a host nor a network.") from None
                self._names.add(entry)

    def is_allowed(self, host: str, port: int) -> bool:
        """True when the operator named this host: private addresses and plain http are fine."""
        host = host.lower().rstrip(".")
        shown = f"[{host}]" if ":" in host else host
        if host in self._names or f"{shown}:{port}" in self._names:
            return True
        address = _address(host)
        return address is not None and self._is_named(address)

    def check_url(self, url: str, *, has_query: bool = False) -> SplitResult:
        """Refuse schemes other than https (http only for allowed hosts), credentials, fragments
        and, unless `has_query`, queries."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            raise ConnectForbiddenError("The address is not a URL.") from None
        if not parts.hostname or parts.username is not None or parts.password is not None:
            raise ConnectForbiddenError("The address must name a host and carry no credentials.")
        if (parts.query and not has_query) or parts.fragment:
            raise ConnectForbiddenError("The address must not carry a query or a fragment.")
        if parts.scheme == "https":
            return parts
        if parts.scheme == "http" and (
            not self._https_only or self.is_allowed(parts.hostname, port)
        ):
            return parts
        raise ConnectForbiddenError(f"Only https is allowed; {self._remedy} to allow plain http.")

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of `host`, all of which may be connected to."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError):
            raise ConnectFailedError("The host cannot be resolved.") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self.is_allowed(host, port):
            for address in addresses:
                parsed = _address(address)
                if parsed is None or not (_is_public(parsed) or self._is_named(parsed)):
                    raise ConnectForbiddenError(
                        "The host resolves to an address that is not public; "
                        f"{self._remedy} if that is meant."
                    )
        return addresses

    def transport(
        self, tls: ssl.SSLContext | None = None, connections: int = 10, idle: float | None = None
    ) -> httpx2.AsyncHTTPTransport:
        """Return an HTTP transport whose every connection passes this guard, without proxies.

        `connections` is its most at once; an unused one is closed after `idle` seconds. `tls`
        brings certificates of its own.
        """
        return _GuardedTransport(self, tls or self._tls, connections, idle)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # Loading the certificates takes tens of milliseconds: once is enough.
        return httpx2.create_ssl_context(trust_env=False)

    def _is_named(self, address: _Address) -> bool:
        return any(
            address.version == network.version and address in network for network in self._networks
        )


class _GuardedTransport(httpx2.AsyncHTTPTransport):
    def __init__(
        self, guard: ConnectGuard, tls: ssl.SSLContext, connections: int, idle: float | None
    ) -> None:
        super().__init__(verify=tls, trust_env=False)
        # The library offers no way to hand in a network backend; its pool does.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=connections,
            keepalive_expiry=idle,
            network_backend=_GuardedBackend(guard),
        )


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    def __init__(self, guard: ConnectGuard) -> None:
        self._guard = guard
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (the library's signature)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failure: Exception = ConnectFailedError("The host has no address.")
        for address in await self._guard.resolve(host, port):
            try:
                return await self._backend.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_public(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        address = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if any(address.version == network.version and address in network for network in _NEVER):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
