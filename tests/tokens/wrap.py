"""`patrol keys wrap-digests` on a database, in batches of forty; a line a batch."""

from __future__ import annotations

import sys

from scanner.db.engine import create_database_engine
from scanner.keyring import Key
from scanner.stores.digests import Peppers
from scanner.stores.wrapping import wrap_digests


def main(url: str, names: str) -> None:
    engine = create_database_engine(url)
    keys = [Key(name, name.encode() * 20) for name in (*names.split(","), "acme")]
    peppers = Peppers(keys[:-1], keys[-1:])
    done = wrap_digests(
        engine, peppers, actor="test", batch=40,
        report=lambda so_far: print(so_far.tokens, so_far.unknown, flush=True),
    )  # fmt: skip
    print("needed", *done.needed, "free", *done.free, flush=True)
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
