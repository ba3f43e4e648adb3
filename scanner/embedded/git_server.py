"""A git server for the demo and the tests: the real `git http-backend` behind a small HTTP server.

It serves reading only, on loopback only. Each answer goes out in as few writes as possible, with
Nagle's algorithm off: split writes on loopback cost 44 ms each.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from scanner.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")
_MOST_BODY = 16 << 20  # bytes; a fetch request is a few hundred
_ANSWER_SECONDS = 120
# Nothing of the machine's own configuration counts, and nobody may push over HTTP.
_CONFIG = {
    "safe.directory": "*",
    "http.receivepack": "false",
    "uploadpack.allowAnySHA1InWant": "true",
    "uploadpack.allowFilter": "true",
}


def git(*arguments: str, cwd: Path | None = None) -> str:
    """Run git, untouched by the user's own configuration, and return what it prints.

    Errors: `ConfigurationError`.
    """
    environment = _environment() | {
        "GIT_AUTHOR_NAME": "Demo",
        "GIT_AUTHOR_EMAIL": "demo@localhost",
        "GIT_COMMITTER_NAME": "Demo",
        "GIT_COMMITTER_EMAIL": "demo@localhost",
    }
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ConfigurationError(f"git {arguments[0]} failed: {done.stderr.strip()[:200]}")
    return done.stdout.strip()


class GitServer:
    """Serves the bare repositories under `root` at `url`, e.g. http://127.0.0.1:8418.

    A context manager; `port` 0 lets the system choose. Errors: `ConfigurationError` when git is
    missing or the port is taken.
    """

    def __init__(self, root: Path, port: int = 0) -> None:
        self._root = root.absolute()
        environment = _environment()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{root} cannot be created ({error.strerror}).") from None
        try:
            self._server = _Server(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise ConfigurationError(
                f"The git server cannot use port {port} ({error.strerror}); choose another one."
            ) from None
        self._server.environment = environment | {
            "GIT_PROJECT_ROOT": str(self._root),
            "GIT_HTTP_EXPORT_ALL": "1",
        }
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="git-server", daemon=True
        )
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def create(self, name: str, object_format: str = "sha1") -> Path:
        """Create the empty bare repository `owner/name` and return its folder. One that exists
        stays as it is."""
        if not _NAME.fullmatch(name):
            raise ConfigurationError("A repository's name has the form owner/name.")
        path = self._root / f"{name.removesuffix('.git')}.git"
        git(
            *("init", "--quiet", "--bare", "--initial-branch=main"),
            *(f"--object-format={object_format}", "--", str(path)),
        )
        return path


def _environment() -> dict[str, str]:
    if shutil.which("git") is None:
        raise ConfigurationError("git is not installed; on Debian: apt install git")
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": str(len(_CONFIG)),
    }
    for index, (key, value) in enumerate(_CONFIG.items()):
        environment[f"GIT_CONFIG_KEY_{index}"] = key
        environment[f"GIT_CONFIG_VALUE_{index}"] = value
    return environment


class _Server(ThreadingHTTPServer):
    environment: dict[str, str]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say what went wrong, except that a client is gone: that is its own affair."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 20
    timeout = 60  # seconds an idle connection stays open

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._answer(411, [], b"")
        elif int(length) > _MOST_BODY:
            self._answer(413, [], b"")
        else:
            self._serve(self.rfile.read(int(length)))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's naming)
        """Requests are not logged: a path may hold anything."""

    def _serve(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        environment = self.server.environment | {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": unquote(path),
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": self.client_address[0],
        }
        if any("\0" in value for value in environment.values()):
            self._answer(400, [], b"")
            return
        try:
            done = subprocess.run(
                ["git", "http-backend"], input=body, env=environment, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_ANSWER_SECONDS,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            self._answer(500, [], b"")
            return
        head, found, content = done.stdout.partition(b"\r\n\r\n")
        if not found:
            self._answer(500, [], b"")
            return
        status, headers = 200, []
        for line in head.decode("latin-1").split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "status":
                status = int(value.split(" ")[0])
            else:
                headers.append((name, value))
        self._answer(status, headers, content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        if status in (411, 413):
            self.close_connection = True  # the body was not read
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
