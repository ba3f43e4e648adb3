"""The git server under the short name it has among git's own tests."""

from __future__ import annotations

import pytest

from scanner.embedded.git_server import GitServer


@pytest.fixture
def server(git_server: GitServer) -> GitServer:
    return git_server
