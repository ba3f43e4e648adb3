"""Counting: what happened and how long it took, for Prometheus. Pure: knows no database, no web.

The processes of one installation count into files of their own (prometheus-client's multiprocess
form), below `metrics/` in the data directory: a folder for each service (`web-1`, `worker-1`), in
it a set of files for each of its processes. A pool's process counts on in the files of the one it
replaces, so nothing is lost and nothing grows; a folder is emptied when its service starts anew. In
what is exposed each series says which service counted it, so that a restart of one of them is a
reset of its own series, and no other's.

Labels hold only what we or the issuer named: outcomes, lanes, stores, patterns. Never what a
stranger wrote, never a token, owner or repository.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from time import perf_counter

from prometheus_client import Counter, Histogram, values
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

log = logging.getLogger(__name__)

PROCESS_LABEL = "process"
_FILES = "*.db"
_MOST_SERVICES = 64  # of one role, on one data directory
_MAIN = "main"
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_FILE_BYTES = 1 << 20  # what the library begins with

_FAST = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SLOW = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    3600.0,
    86400.0,
)

_names: dict[int, str] = {}  # process id -> what its files are called
_held: list[int] = []  # the lock of our folder, until we end
FAMILIES: list[_Family] = []


class _Family:
    """A family of series. `labels`: name -> every value there is, or () where it is configured."""

    kind = ""

    def __init__(self, name: str, text: str, **labels: tuple[str, ...]) -> None:
        self.name, self.text, self.labels = name, text, labels
        FAMILIES.append(self)
        self._made: Counter | Histogram | None = None
        self._known: dict[tuple[tuple[str, str], ...], Counter | Histogram] = {}

    def _make(self) -> Counter | Histogram:
        raise NotImplementedError

    def reset(self) -> None:
        """Begin anew, where `start` has said to count."""
        self._made = None
        self._known.clear()

    def _series(self, labels: Mapping[str, str]) -> Counter | Histogram:
        if self._made is None:
            self._made = self._make()
        if not labels:
            return self._made
        chosen = tuple(labels.items())
        series = self._known.get(chosen)  # the library's own look-up takes longer than counting
        if series is None:
            series = self._known[chosen] = self._made.labels(**labels)
        return series

    def show(self) -> None:
        """Make the series that are known beforehand, at 0: a rate needs a beginning."""
        if all(self.labels.values()):
            for chosen in product(*self.labels.values()):
                self._series(dict(zip(self.labels, chosen, strict=True)))


class Count(_Family):
    """How often something happened; only grows."""

    kind = "counter"

    def _make(self) -> Counter:
        return Counter(self.name, self.text, list(self.labels), registry=None)

    def add(self, amount: float = 1, **labels: str) -> None:
        """Count `amount` more."""
        series = self._series(labels)
        assert isinstance(series, Counter)  # noqa: S101 (what _make returns)
        series.inc(amount)


class Seconds(_Family):
    """How long something took."""

    kind = "histogram"

    def __init__(
        self, name: str, text: str, buckets: tuple[float, ...], **labels: tuple[str, ...]
    ) -> None:
        super().__init__(name, text, **labels)
        self._buckets = buckets

    def _make(self) -> Histogram:
        return Histogram(
            self.name, self.text, list(self.labels), registry=None, buckets=self._buckets
        )

    def note(self, seconds: float, **labels: str) -> None:
        """Note one duration; a clock that was set back makes it 0, not negative."""
        series = self._series(labels)
        assert isinstance(series, Histogram)  # noqa: S101 (what _make returns)
        series.observe(max(0.0, seconds))

    @contextmanager
    def timed(self, **labels: str) -> Iterator[None]:
        """Note how long the block took, however it ended."""
        began = perf_counter()
        try:
            yield
        finally:
            self.note(perf_counter() - began, **labels)


LANES = ("reports", "webhooks", "feed", "history")

HTTP_REQUESTS = Count(
    "patrol_http_requests_total", "Requests answered.", method=(), route=(), status=()
)
HTTP_SECONDS = Seconds("patrol_http_request_seconds", "Time to answer.", _FAST, route=())
PUSHES = Count(
    "patrol_pushes_total",
    "Webhook deliveries by what became of them; all but the first three were refused.",
    outcome=(
        "accepted", "duplicate", "ignored", "signature", "payload", "too_large", "forbidden",
        "timeout", "disconnected", "unavailable",
    ),
)  # fmt: skip
SCANS = Count(
    "patrol_scans_total",
    "Attempts at a scan by how they ended.",
    lane=LANES,
    outcome=("done", "partial", "parked", "retried", "lost", "handed_back"),
)
SCAN_SECONDS = Seconds(
    "patrol_scan_stage_seconds",
    "Stages of a finished scan; wait: from the push's arrival on, total: to the verdict.",
    _SLOW,
    stage=("wait", "fetch", "match", "prove", "total"),
)
SCANNED_OBJECTS = Count("patrol_scanned_objects_total", "Git objects that were read.")
SCANNED_BYTES = Count("patrol_scanned_bytes_total", "Bytes that were matched, inflated.")
CANDIDATES = Count(
    "patrol_candidates_total", "Candidates by pattern and verdict.", pattern=(), validity=()
)
INCIDENTS = Count("patrol_incidents_opened_total", "Leaks of known tokens.", validity=())
REVOCATIONS = Count(
    "patrol_revocations_total",
    "Steps of responses by outcome.",
    outcome=("revoked", "already_revoked", "still_active", "not_needed", "retried", "parked"),
)
HIT_TO_REVOKED = Seconds(
    "patrol_hit_to_revoked_seconds", "From a token's proof to its revocation.", _SLOW
)
NOTICES = Count(
    "patrol_notices_total",
    "Attempts at a mail by outcome.",
    kind=("leak", "alarm"),
    outcome=("delivered", "retried", "parked"),
)
STORE_ANSWERS = Count(
    "patrol_store_requests_total",
    "Questions to a token store.",
    store=(),
    operation=("find", "revoke"),
    outcome=("answered", "unavailable", "untrusted", "failed"),
)
STORE_SECONDS = Seconds(
    "patrol_store_request_seconds", "Time for a store's answer.", _FAST, store=(), operation=()
)
WAKES_FAILED = Count(
    "patrol_broker_wakes_failed_total", "Wakes the broker did not take; the sweep finds the work."
)
SEALED = Count(
    "patrol_sealed_tokens_total",
    "Tokens that had to wait for their verdict, by what became of it.",
    outcome=("waiting", "judged", "expired", "parked"),
)

_COUNTED_BY: Mapping[str, tuple[_Family, ...]] = {
    "web": (PUSHES, WAKES_FAILED),
    "worker": (
        SCANS, SCAN_SECONDS, SCANNED_OBJECTS, SCANNED_BYTES, REVOCATIONS, HIT_TO_REVOKED, NOTICES,
        WAKES_FAILED, SEALED,
    ),
}  # fmt: skip


def start(folder: Path, role: str) -> Path:
    """Count into files below `folder` from now on, in this process and in those it forks; returns
    the service's own folder in it.

    A service of the same role on the same folder gets another one. Before this, and in commands
    that never call it, counts stay in memory. Errors: `OSError` for a folder that cannot be used.
    """
    service = _take_folder(folder, role)
    for left in service.glob(_FILES):
        left.unlink()
    os.environ[_FOLDER] = str(service)  # read whenever a file is opened
    become(_MAIN)
    # Chosen for all metrics that are made from now on; each asks for its process's name every time.
    values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]
        _process_name
    )
    for family in FAMILIES:
        family.reset()
    for family in _COUNTED_BY.get(role, ()):
        family.show()
    return service


def become(name: str) -> None:
    """Say who this process is: of all that live at once in a service, only one has the name.

    Takes the room of its files, if it is the first of the name: they are mapped into memory, and
    where a disk is full a write into a hole of theirs would end the process. Errors: `OSError`.
    """
    _names[os.getpid()] = name
    folder = os.environ.get(_FOLDER)
    for kind in ("counter", "histogram") if folder else ():
        file = os.open(f"{folder}/{kind}_{name}.db", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, max(_FILE_BYTES, os.fstat(file).st_size))
        finally:
            os.close(file)


def _process_name() -> str:
    pid = os.getpid()
    return _names.get(pid) or str(pid)


def _take_folder(folder: Path, role: str) -> Path:
    for number in range(1, _MOST_SERVICES + 1):
        service = folder / f"{role}-{number}"
        service.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Held by us and by all that we fork, so that nobody empties it while one of us counts.
        lock = os.open(service / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        _held.append(lock)
        return service
    raise OSError(f"{folder} serves {_MOST_SERVICES} processes of the role {role} already")


def collect(services: Iterable[Path]) -> Iterator[Metric]:
    """Read the folders of services, each series labelled with its folder's name."""
    families: dict[str, Metric] = {}
    for service in services:
        for metric in _read(service):
            family = families.setdefault(
                metric.name, Metric(metric.name, metric.documentation, metric.type)
            )
            family.samples += [_of(service.name, sample) for sample in metric.samples]
    yield from families.values()


def services_of(folder: Path) -> list[Path]:
    """The folders of all services that ever counted below `folder`."""
    return sorted(path for path in folder.glob("*-*") if path.is_dir())


def _of(service: str, sample: Sample) -> Sample:
    return sample._replace(labels={**sample.labels, PROCESS_LABEL: service})


def _read(service: Path) -> Iterable[Metric]:
    try:
        merged: Iterable[Metric] = MultiProcessCollector.merge(  # type: ignore[no-untyped-call]
            [str(path) for path in sorted(service.glob(_FILES))]
        )
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        # It was emptied under our eyes, or a disk that filled up cut it.
        log.warning("the counts of %s cannot be read: %s", service.name, error)
        return ()
    return merged
