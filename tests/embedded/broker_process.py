"""A process at one end of the embedded broker; the tests start several, and kill some."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kombu.simple import SimpleQueue

from scanner.settings import load_settings
from scanner.worker import SCAN, make_app


def produce(queue: SimpleQueue, name: str, count: int) -> None:
    filler = "x" * 100_000  # writing it takes long enough for a reader to come in between
    for number in range(count):
        queue.put({"id": f"{name}-{number}", "filler": filler})


def consume(queue: SimpleQueue) -> None:
    """Print what is taken, until a message says stop."""
    while True:
        message: Any = queue.get(timeout=60)
        body = message.decode()
        message.ack()
        if body == "stop":
            return
        print(body["id"], flush=True)


def main(data_dir: str, role: str, name: str = "", count: str = "0") -> None:
    app = make_app(load_settings({"data_dir": Path(data_dir)}))
    with app.connection_for_write() as connection:
        queue = connection.SimpleQueue(SCAN)
        if role == "produce":
            produce(queue, name, int(count))
        else:
            consume(queue)
        queue.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
