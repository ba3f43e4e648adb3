"""Several readers at one folder: files go out in batches, inspections come back in order.

Readers parse what strangers wrote, in native code too. So each is a process of its own that holds
no key and may open nothing but the targets (threat 3). One that dies is replaced; the file it died
of is found by asking for its batch one by one, named, and its neighbours are read all the same.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from scanner.errors import InspectionError
from scanner.git.wire import InspectionLoader, dump_ruleset
from scanner.matcher.pattern import Ruleset
from scanner.model import Inspection
from scanner.readers.answer import load_answer
from scanner.readers.process import Reader
from scanner.sources.walk import MOST_BYTES, Batch

_MEMORY_BYTES = 4 << 30  # of address space
_TIMEOUT = 300.0  # seconds of processor time for one batch
_AHEAD = 2  # batches that a reader has at once, so that it never waits for the next
_ALONE = 6  # batches that one reader does alone: it is done before another has started
_WINDOW = 512  # batches under way beyond the oldest: what is known too early is kept
_DIED = "the process that read it died of it"


@dataclass(slots=True)
class _Job:
    """A batch, or a part of one that killed its reader."""

    number: int
    batch: Batch
    paths: tuple[str, ...]


@dataclass(slots=True)
class _Slot:
    """What is known of a batch so far; complete when no file is missing."""

    batch: Batch
    missing: int
    parts: dict[str, Inspection] = field(default_factory=dict)  # by the first path of each


class Crew:
    """Up to `jobs` readers; the first begins to load at once. Close it in the end.

    A file of more than `most_bytes` is not read; a batch may take `timeout` seconds of processor
    time.
    """

    def __init__(
        self, jobs: int, *, most_bytes: int = MOST_BYTES, timeout: float = _TIMEOUT
    ) -> None:
        self._jobs = jobs
        self._most = most_bytes
        self._timeout = timeout
        self._readers = [Reader()]
        self._start: dict[str, Any] = {}
        self._selector = selectors.DefaultSelector()
        self._waiting: deque[_Job] = deque()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(
        self,
        ruleset: Ruleset,
        bound: frozenset[str],
        cache_dir: Path,
        targets: Iterable[Path] = (),
    ) -> None:
        """Tell what to look for, and below which paths files may be opened."""
        self._loader = InspectionLoader(ruleset)
        self._start = {
            "patterns": dump_ruleset(ruleset),
            "bound": sorted(bound),
            "cache_dir": str(cache_dir.resolve()),
            "targets": [str(target) for target in targets],
            "most_bytes": self._most,
            "memory_bytes": _MEMORY_BYTES,
            "timeout": self._timeout,
        }
        for reader in self._readers:
            self._introduce(reader)

    @property
    def readers(self) -> tuple[Reader, ...]:
        """Those that were started."""
        return tuple(self._readers)

    def read(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Inspection]]:
        """Yield each batch with what is in it, in the order they came, whoever read it.

        Errors: `InspectionError` when no reader starts.
        """
        slots: dict[int, _Slot] = {}
        source = enumerate(batches)
        newest = oldest = 0
        more = True
        while True:
            while more and not self._waiting and newest - oldest < _WINDOW:
                reader = self._free(newest)
                if reader is None:
                    break
                number, batch = next(source, (-1, None))
                if batch is None:
                    more = False
                    break
                newest = number + 1
                slots[number] = _Slot(batch, len(batch.paths))
                if batch.paths:
                    self._ask(reader, _Job(number, batch, batch.paths))
            while oldest in slots and not slots[oldest].missing:
                slot = slots.pop(oldest)
                oldest += 1
                yield slot.batch, _merge(slot)
            if not slots and not more:
                return
            while self._waiting and (reader := self._free(newest)) is not None:
                self._ask(reader, self._waiting.popleft())
            for job, inspection in self._answers():
                slot = slots[job.number]
                slot.missing -= len(job.paths)
                slot.parts[job.paths[0]] = inspection

    def read_stream(self, stream: IO[bytes], name: str = "-") -> Inspection:
        """Let a reader read what `stream` holds, up to the bound.

        Errors: `InspectionError` when it died of that.
        """
        job = _Job(0, Batch((name,)), (name,))
        reader = self._readers[0]
        try:
            reader.ask(job, {}, [stream.fileno()])
            while (answer := reader.take()) is None:
                pass
            return load_answer(self._loader, answer, job.paths)
        except (OSError, EOFError, ValueError, TypeError, KeyError):
            raise InspectionError("The process that read the stream died of it.") from None

    def close(self) -> None:
        """Stop all readers."""
        self._selector.close()
        for reader in self._readers:
            reader.stop()
        self._readers.clear()

    def _free(self, batches: int) -> Reader | None:
        """Return the reader that owes least, or a new one; None: all have enough to do."""
        reader = min(self._readers, key=lambda one: len(one.asked), default=None)
        if reader is not None and (
            not reader.asked
            or (len(reader.asked) < _AHEAD and len(self._readers) == self._jobs)
            or batches < _ALONE
        ):
            return reader
        # The first leaves compiled patterns behind; the others need not compile them, too.
        if len(self._readers) < self._jobs and (reader is None or self._is_any_ready):
            reader = Reader()
            self._readers.append(reader)
            self._introduce(reader)
            return reader
        return None

    @property
    def _is_any_ready(self) -> bool:
        return any(reader.is_ready for reader in self._readers)

    def _introduce(self, reader: Reader) -> None:
        self._selector.register(reader.channel, selectors.EVENT_READ, reader)
        self._speak(reader, lambda: reader.begin(self._start))

    def _ask(self, reader: Reader, job: _Job) -> None:
        message = {"paths": job.paths, "follow": job.batch.follow}
        self._speak(reader, lambda: reader.ask(job, message))

    def _speak(self, reader: Reader, say: Any) -> None:
        try:
            say()
        except OSError:  # it is dead, and its answer will say so: that it has none
            return

    def _answers(self) -> Iterator[tuple[_Job, Inspection]]:
        """Wait for answers; a reader without one is dead."""
        for key, _ in self._selector.select():
            reader: Reader = key.data
            try:
                answer = reader.take()
                if answer is None:
                    continue
                job = reader.asked[0]
                inspection = load_answer(self._loader, answer, job.paths)
            except (OSError, EOFError, ValueError, TypeError, KeyError):
                yield from self._bury(reader)
                continue
            reader.asked.popleft()
            yield job, inspection

    def _bury(self, reader: Reader) -> Iterator[tuple[_Job, Inspection]]:
        """Take a dead reader's work back; what it was at may be what killed it."""
        self._selector.unregister(reader.channel)
        self._readers.remove(reader)
        reader.stop()
        if not reader.is_ready:
            raise InspectionError("The process that reads files does not start.")
        if reader.asked:
            job = reader.asked.popleft()
            if len(job.paths) == 1:
                yield job, Inspection(partial=(f"{job.paths[0]}: {_DIED}",))
            else:
                alone = (_Job(job.number, job.batch, (path,)) for path in job.paths)
                self._waiting.extend(alone)
        self._waiting.extend(reader.asked)


def _merge(slot: _Slot) -> Inspection:
    if len(slot.parts) == 1:
        (inspection,) = slot.parts.values()
    else:
        parts = [slot.parts[path] for path in slot.batch.paths if path in slot.parts]
        inspection = Inspection(
            found=tuple(found for part in parts for found in part.found),
            objects=sum(part.objects for part in parts),
            blobs=sum(part.blobs for part in parts),
            bytes=sum(part.bytes for part in parts),
            scanned_bytes=sum(part.scanned_bytes for part in parts),
            partial=tuple(reason for part in parts for reason in part.partial),
        )
    if not slot.batch.partial:
        return inspection
    return Inspection(
        inspection.found, inspection.objects, inspection.blobs, inspection.bytes,
        inspection.scanned_bytes, (*slot.batch.partial, *inspection.partial),
    )  # fmt: skip
