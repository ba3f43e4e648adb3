"""A service that uses the store while its pepper is turned: looks up, issues, revokes, in turn.

Every answer is compared with what must be. It stops when its input ends, and prints what it did; a
wrong answer is its last line. Arguments: database, peppers (newest first), file of known tokens.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from pathlib import Path

from scanner.db.engine import create_database_engine
from scanner.keyring import Key
from scanner.model import Secret, Validity
from scanner.patterns.generate import generate
from scanner.stores.digests import Peppers
from scanner.stores.lifecycle import TokenLifecycle
from scanner.stores.sql import SqlTokenStore


def key(name: str) -> Key:
    return Key(name, name.encode() * 20)


def main(url: str, names: str, known: str) -> None:
    engine = create_database_engine(url)
    peppers = Peppers([key(name) for name in names.split(",")], [key("acme")])
    store, tokens = SqlTokenStore(engine, peppers), TokenLifecycle(engine, peppers)
    expected = {
        Secret(text.encode()): Validity(value)
        for text, value in json.loads(Path(known).read_text()).items()
    }
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    rng = random.Random()
    done = {"looked up": 0, "issued": 0, "revoked": 0}
    mine: list[tuple[Secret, str]] = []
    print("ready", flush=True)
    while not ended.is_set():
        asked = [*rng.sample(list(expected), min(20, len(expected))), generate("npm-access-token")]
        for secret, found in zip(asked, store.find(asked), strict=True):
            wanted = expected.get(secret, Validity.NEVER_ISSUED)
            if found.validity is not wanted:
                print(f"wrong: {found.validity} instead of {wanted}", flush=True)
                sys.exit(1)
        done["looked up"] += len(asked)
        if rng.random() < 0.5:
            secret = generate("npm-access-token")
            made = tokens.create(
                secret, organisation="Acme", owner="Ada", name="load", scopes=[], days=1,
                pattern="npm-access-token", mask="npm_…", actor="load",
            )  # fmt: skip
            mine.append((secret, made["id"]))
            expected[secret] = Validity.ACTIVE
            done["issued"] += 1
        elif mine:
            secret, token_id = mine.pop()
            if not store.revoke(token_id, "incident-1"):
                print("wrong: not revoked", flush=True)
                sys.exit(1)
            expected[secret] = Validity.REVOKED
            done["revoked"] += 1
    print(json.dumps(done), flush=True)
    engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
