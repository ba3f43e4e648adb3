"""What our own pages tell an operator to set up."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs" / "operating.md"


def redis_users(password: str) -> dict[str, str]:
    """The Redis user of docs/operating.md, for `RedisServer(users=...)`."""
    found = re.search(r"^ {4}user (\S+) (on >PASSWORD .+)$", _PAGE.read_text("utf-8"), re.M)
    assert found is not None
    return {found[1]: found[2].replace("PASSWORD", password)}
