"""Which process does what. What must not wait has a process that does nothing else.

A queue's rank in a broker orders what waits; it frees no process that is busy for a minute. So each
kind of work that may be slow (fetching, mailing, asking a store) is kept away from the processes
that others rely on, and a revocation never waits for any of it (law 4).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from scanner.db.heartbeats import WORKER
from scanner.db.lanes import Lane
from scanner.worker import DELIVER, QUEUES, RECHECK, RESPOND, SCANS

_PREFIX = "patrol."


def short(queue: str) -> str:
    """A queue's name as people write it: "respond"."""
    return queue.removeprefix(_PREFIX)


NAMES = tuple(map(short, QUEUES))


@dataclass(frozen=True, slots=True)
class Slot:
    """One process. `queues`: those it listens to, the most urgent first; `steps`: what it looks for
    of its own accord."""

    name: str
    queues: tuple[str, ...]
    steps: tuple[str, ...]
    niceness: int = 0  # where all processors are busy, a revocation goes first

    @property
    def heartbeat(self) -> str:
        """The name it reports under: who listens to what."""
        return f"{WORKER}:{','.join(map(short, self.queues))}"

    @property
    def scans(self) -> bool:
        """True for one that needs a parsing child."""
        return any(queue in SCANS.values() for queue in self.queues)


def plan(names: Collection[str], concurrency: int) -> tuple[Slot, ...]:
    """The processes for these queues, `concurrency` of them for scans.

    With two or more, half of those are kept for reports and webhooks: a history may take minutes.
    """
    chosen = {name for name in QUEUES if short(name) in names}
    return (*_response(chosen), *_scanning(chosen, concurrency))


def _response(chosen: Collection[str]) -> Iterator[Slot]:
    if RESPOND in chosen:
        yield Slot("respond", (RESPOND,), (RESPOND,))
    if RECHECK in chosen:
        # A store that does not answer may keep this one busy; it helps with revocations otherwise.
        queues = tuple(name for name in (RESPOND, RECHECK) if name in chosen)
        yield Slot("recheck", queues, queues)
    if DELIVER in chosen:
        yield Slot("deliver", (DELIVER,), (DELIVER,), niceness=10)


def _scanning(chosen: Collection[str], concurrency: int) -> Iterator[Slot]:
    lanes = [lane for lane in Lane if SCANS[lane] in chosen]
    if not lanes:
        return
    urgent = [lane for lane in lanes if lane <= Lane.WEBHOOKS]
    kept = concurrency // 2 if urgent and urgent != lanes else 0
    for number in range(concurrency):
        ours = urgent if number < kept else lanes
        # A step takes what is more urgent first: the least urgent one looks at everything.
        queues = tuple(SCANS[one] for one in ours)
        yield Slot(f"scan-{number + 1}", queues, (SCANS[ours[-1]],), niceness=5)
