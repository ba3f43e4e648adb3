"""Which servers this machine has; a test of one that is missing says what to install.

`scripts/test_servers.sh` knows where they are, and installs them for `make test` where it can.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "scripts" / "test_servers.sh"


@cache
def _servers() -> dict[str, tuple[str, str]]:
    """Name -> its path ("" when it is missing), what is needed."""
    lines = subprocess.run(
        [_SCRIPT, "where"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return {name: (path, needed) for name, path, needed in (line.split("\t") for line in lines)}


def place_of(name: str) -> Path | None:
    """Where `redis-server` or `chromium` is, or the folder of `postgresql`'s programs."""
    path, _ = _servers()[name]
    return Path(path) if path else None


def needs(name: str) -> Path:
    """Return where a server is; skip the test when it is nowhere, or fail it where CI is set."""
    if place := place_of(name):
        return place
    reason = f"{_servers()[name][1]} is missing; on Debian: apt-get install {name}"
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(reason)
    pytest.skip(reason)
