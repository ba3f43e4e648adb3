"""The one connect guard: where a connection may go is decided at the moment it is made.

A name is resolved once, every address it has is checked, and the connection goes to a checked
address, so that a second answer from DNS cannot lead elsewhere. TLS still verifies the name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2

from scanner.errors import FetchRefusedError, FetchUnavailableError


class ConnectGuard:
    """Allows https to public addresses, and what `allowed` names: "host" or "host:port"."""

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = frozenset(entry.lower() for entry in allowed)

    def is_allowed(self, host: str, port: int) -> bool:
        """True when the operator named this host: private addresses and plain http are fine."""
        return host.lower() in self._allowed or f"{host.lower()}:{port}" in self._allowed

    def check_url(self, url: str) -> None:
        """Refuse schemes other than https (http only for allowed hosts), and credentials."""
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if not parts.hostname or parts.username or parts.password:
            raise FetchRefusedError("The address must name a host and carry no credentials.")
        if parts.scheme == "https":
            return
        if parts.scheme != "http" or not self.is_allowed(parts.hostname, port):
            raise FetchRefusedError(
                f"Only https is allowed; name the host in PATROL_ALLOW_HOSTS to allow "
                f"{parts.hostname} over {parts.scheme or 'nothing'}."
            )

    async def resolve(self, host: str, port: int) -> str:
        """Return an address of `host` that may be connected to."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
        except OSError:
            raise FetchUnavailableError(f"The host {host} cannot be resolved.") from None
        addresses = [str(entry[4][0]) for entry in found]
        if not self.is_allowed(host, port):
            for address in addresses:
                if not _is_public(address):
                    raise FetchRefusedError(
                        f"{host} resolves to an address that is not public; "
                        "name it in PATROL_ALLOW_HOSTS if that is meant."
                    )
        return addresses[0]

    def transport(self) -> httpx2.AsyncHTTPTransport:
        """Return an HTTP transport whose every connection passes this guard."""
        transport = httpx2.AsyncHTTPTransport(trust_env=False)
        transport._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(trust_env=False),
            network_backend=_GuardedBackend(self),
        )
        return transport


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
        address = await self._guard.resolve(host, port)
        return await self._backend.connect_tcp(
            address, port, timeout, local_address, socket_options
        )

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_global and not (mapped or ip).is_multicast
