"""`patrol tokens import` of a file; a line with the number of new tokens after each batch."""

from __future__ import annotations

import sys
from pathlib import Path

from scanner.db.engine import create_database_engine
from scanner.keyring import Key
from scanner.stores.digests import Peppers
from scanner.stores.importer import Importer

PATTERN = "npm-access-token"


def main(url: str, path: str) -> None:
    engine = create_database_engine(url)
    keys = [Key(name, name.encode() * 20) for name in ("k1", "acme")]
    importer = Importer(
        engine, Peppers(keys[:1], keys[1:]), frozenset({PATTERN}), lambda _: False, str
    )
    importer.run(
        Path(path), default_pattern=PATTERN, actor="test",
        report=lambda outcome: print(outcome.imported, flush=True),
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
