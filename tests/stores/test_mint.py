"""New tokens are only made of formats that a store answers for, and that can be issued."""

from __future__ import annotations

import pytest

from scanner.errors import RequestInvalidError
from scanner.patterns.loader import load
from scanner.stores.mint import Mint


def test_what_cannot_be_issued_is_refused() -> None:
    mint = Mint(load(), ["npm-access-token", "json-web-token", "aws-access-key-id"])
    assert mint.make("npm-access-token").secret.reveal().startswith(b"npm_")
    for pattern in ("json-web-token", "aws-access-key-id"):
        with pytest.raises(RequestInvalidError, match="can be found, but not issued"):
            mint.make(pattern)
    with pytest.raises(RequestInvalidError, match="does not issue"):
        mint.make("github-pat")
