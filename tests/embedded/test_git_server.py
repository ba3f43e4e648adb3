"""The embedded git server serves the real thing, on loopback, for reading only."""

from __future__ import annotations

from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from scanner.embedded.git_server import GitServer, git
from scanner.errors import ConfigurationError


def test_git_itself_can_clone_but_not_push(tmp_path: Path) -> None:
    with GitServer(tmp_path / "served") as server:
        bare = server.create("acme/app")
        assert bare == tmp_path / "served" / "acme" / "app.git"
        work = tmp_path / "work"
        git("clone", "--quiet", str(bare), str(work))
        (work / "a").write_text("hello")
        git("add", "a", cwd=work)
        git("commit", "--quiet", "-m", "one", cwd=work)
        git("push", "--quiet", "origin", "HEAD:main", cwd=work)
        url = f"{server.url}/acme/app.git"
        git("clone", "--quiet", url, str(tmp_path / "copy"))
        assert (tmp_path / "copy" / "a").read_text() == "hello"
        with pytest.raises(ConfigurationError, match="git push failed"):
            git("push", "--quiet", url, "HEAD:refs/heads/other", cwd=work)


def test_creating_twice_keeps_what_is_there(tmp_path: Path) -> None:
    with GitServer(tmp_path / "served") as server:
        assert server.create("acme/app") == server.create("acme/app.git")
        for name in ("app", "../x", "a/b/c", "a/..", "-a/b", "a/ b", ""):
            with pytest.raises(ConfigurationError, match="owner/name"):
                server.create(name)


def test_odd_requests(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("hush")
    with GitServer(tmp_path / "served") as server:
        server.create("acme/app")
        for method, path, headers, status in (
            ("GET", "/acme/none.git/info/refs?service=git-upload-pack", {}, 404),
            ("GET", "/../outside", {}, 500),
            ("GET", "/%2e%2e/outside", {}, 500),
            ("GET", "/a%00b", {}, 400),
            ("POST", "/acme/app.git/git-upload-pack", {"Content-Length": "99999999999"}, 413),
            ("POST", "/acme/app.git/git-receive-pack", {"Content-Length": "0"}, 403),
        ):
            connection = HTTPConnection(server.address, timeout=10)
            connection.putrequest(method, path)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            with closing(connection), connection.getresponse() as response:
                assert (path, response.status) == (path, status)
                assert b"hush" not in response.read()


def test_a_taken_port_and_a_missing_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with GitServer(tmp_path / "one") as server:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=f"port {port}"):
            GitServer(tmp_path / "two", port)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigurationError, match="git is not installed"):
        GitServer(tmp_path / "three")
