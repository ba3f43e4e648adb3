"""Rotates tokens in processes of which each is killed one step later than the one before: before
each statement, before the commit, and after it. Prints for each token's id what became of it."""

from __future__ import annotations

import os
import signal
import sys

from sqlalchemy import event

from scanner.db.engine import create_database_engine
from scanner.keyring import Key
from scanner.patterns.generate import generate
from scanner.stores.digests import Peppers
from scanner.stores.lifecycle import TokenLifecycle

OVERLAP = 3_600
KEYS = [Key(name, name.encode() * 20) for name in ("k1", "acme")]


def rotate(url: str, token_id: str, survives: int) -> None:
    """Rotate, but be killed at the step after so many."""
    engine = create_database_engine(url)
    left = [survives]

    def step(*_: object) -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    with engine.connect():
        pass  # what a connection is set up with is no step of rotating
    event.listen(engine, "before_cursor_execute", step)
    event.listen(engine, "commit", step)
    tokens = TokenLifecycle(engine, Peppers(KEYS[:1], KEYS[1:]))
    tokens.rotate(
        token_id, generate("npm-access-token"), mask="npm_…a1B2", overlap=OVERLAP, actor="test"
    )
    os.kill(os.getpid(), signal.SIGKILL)  # all its steps are done, and nobody was told


def main(url: str, *token_ids: str) -> None:
    for survives, token_id in enumerate(token_ids):
        pid = os.fork()
        if pid == 0:
            try:
                rotate(url, token_id, survives)
            finally:
                os._exit(1)  # it was not killed
        _, status = os.waitpid(pid, 0)
        print(token_id, "killed" if os.WIFSIGNALED(status) else "failed", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
