"""An event loop in a thread of its own, so that callers without one share its connections."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_PATIENCE = 2.0  # seconds for a loop to close what it holds


class LoopThread:
    """Runs coroutines for any thread. It starts when first needed, anew in a forked process, and
    ends with its owner or the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._end: Callable[[], object] = lambda: None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns, or raise what it raises."""
        future = asyncio.run_coroutine_threadsafe(work, self._current())
        try:
            return future.result()
        except BaseException:
            future.cancel()  # the caller was interrupted: nobody waits any more
            raise

    def close(self) -> None:
        """End the thread; the next run starts another."""
        with self._lock:
            self._end()
            self._loop, self._end = None, lambda: None

    def _current(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=_serve, args=(self._loop,), name="store", daemon=True
                )
                thread.start()
                self._end = weakref.finalize(self, _stop, self._loop, thread, self._pid)
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, pid: int) -> None:
    if pid != os.getpid() or not thread.is_alive():  # a forked child has no such thread
        return
    loop.call_soon_threadsafe(loop.stop)
    thread.join(_PATIENCE)
