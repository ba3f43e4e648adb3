"""A gate before a git server: while it is closed, requests for some repositories hang."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Gate:
    """Listens on loopback and hands requests on. While `closed`, those whose path begins with it
    are held without an answer; they stay so when the gate is opened."""

    def __init__(self, server: str, closed: str | None = None) -> None:
        host, port = server.rsplit(":", 1)
        self._server = host, int(port)
        self.closed = closed
        self.held = threading.Semaphore(0)  # one for each request that was held
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._open.add(client)
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            first = client.recv(65_536)
            path = first.split(b" ", 2)[1].decode() if first else ""
            if self.closed is not None and path.startswith(self.closed):
                self.held.release()
                return  # and the connection stays open
            with client, socket.create_connection(self._server) as server:
                server.sendall(first)
                back = threading.Thread(target=_pump, args=[server, client], daemon=True)
                back.start()
                _pump(client, server)
                back.join(30)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
