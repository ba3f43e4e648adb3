"""The embedded broker: Celery messages as files in the data directory, no server needed.

kombu's filesystem transport writes a message in place, and a reader that takes the file while it is
still empty dies of it. Here a message is written beside the queue and renamed into it.
"""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path
from queue import Empty
from time import monotonic, monotonic_ns
from typing import Any

from celery.worker import state
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport.filesystem import Channel, Transport
from kombu.utils.encoding import bytes_to_str, str_to_bytes
from kombu.utils.json import dumps, loads

from scanner.keyring import prepare_data_dir

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
# Every message is a wake, and so many wake everybody; without a worker, beat would fill the disk.
_MOST_WAITING = 1_000
_LONGEST_WAIT = 0.2  # seconds between two looks for a stop request
URL = "patrolfs://localhost//"  # without a host, kombu warns that it takes this one


class AtomicChannel(Channel):
    """A filesystem channel whose messages appear whole or not at all."""

    supports_fanout = False
    _is_full = False
    # Bindings stay in memory: each process declares its own queue, and no file can be read half.
    get_table = virtual.Channel.get_table  # type: ignore[assignment]
    _delete = virtual.Channel._delete

    def _put(self, queue: str, payload: Any, **_kwargs: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        if len(os.listdir(folder)) >= _MOST_WAITING:  # noqa: PTH208 (a thousand Paths cost more)
            if not self._is_full:
                log.warning("%d wakes wait for a worker; no more are added", _MOST_WAITING)
            self._is_full = True
            return
        self._is_full = False
        name = f"{monotonic_ns():020d}_{uuid.uuid4().hex}.{queue}.msg"
        temporary = folder / f".{name}.writing"
        temporary.write_bytes(str_to_bytes(dumps(payload)))
        temporary.replace(folder / name)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for path in sorted(Path(self.data_folder_in).glob(f"*.{queue}.msg")):
            if path.name.partition(".")[2] != f"{queue}.msg":
                continue  # not written to its end, or of a queue whose name ends like ours
            taken = Path(self.processed_folder) / path.name
            try:
                path.rename(taken)
            except FileNotFoundError:
                continue  # another consumer was faster
            payload = taken.read_bytes()
            taken.unlink()
            try:
                return loads(bytes_to_str(payload))
            except ValueError:
                # A power cut can leave a file empty. It was a wake: the sweep finds its work.
                log.warning("a damaged message of the embedded broker was dropped")
        raise Empty


class AtomicTransport(Transport):
    """The transport that `patrolfs://` names."""

    Channel = AtomicChannel

    def drain_events(  # type: ignore[override]  # its two bases disagree with each other
        self, connection: Any, timeout: float | None = None
    ) -> Any:
        """Wait for a message; a worker that was told to stop is not kept waiting."""
        until = None if timeout is None else monotonic() + timeout
        while True:
            left = _LONGEST_WAIT if until is None else until - monotonic()
            try:
                return super().drain_events(connection, timeout=min(left, _LONGEST_WAIT))
            except TimeoutError:
                if (left <= _LONGEST_WAIT and until is not None) or _is_stopping():
                    raise


def _is_stopping() -> bool:
    """True once Celery's worker got its signal; it sets an exit code, which may be 0."""
    asked = (state.should_stop, state.should_terminate)
    return any(one is not None and one is not False for one in asked)


def configure(data_dir: Path) -> tuple[str, dict[str, Any]]:
    """Prepare the folders; returns (broker URL, Celery's broker_transport_options)."""
    TRANSPORT_ALIASES["patrolfs"] = "scanner.embedded.broker:AtomicTransport"
    root = data_dir / "broker"
    for name in ("queue", "processed", "control"):
        prepare_data_dir(root / name)
    return URL, {
        "data_folder_in": str(root / "queue"),
        "data_folder_out": str(root / "queue"),
        "processed_folder": str(root / "processed"),
        "control_folder": str(root / "control"),
        "store_processed": False,
        "polling_interval": _POLL_SECONDS,
    }
