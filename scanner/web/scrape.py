"""What Prometheus gets: the counts of all services on this data directory, and the gauges that only
the database knows, read as they are asked for.

Nothing here names a token, an owner or a repository; how many leaks there are is the issuer's
business all the same, so it takes the API's bearer token unless `PATROL_METRICS_OPEN` is set.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from time import monotonic

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from sqlalchemy.exc import SQLAlchemyError

from scanner import __version__
from scanner.bootstrap import Services
from scanner.db.engine import reader
from scanner.db.vitals import Vitals, read_vitals
from scanner.metrics import collect, services_of
from scanner.settings import Settings
from scanner.web.auth import authorised

_FRESH_SECONDS = 1.0

GAUGES = {
    "patrol_build_info": ("Always 1: which version answers.", ("version", "python")),
    "patrol_database_up": ("1 while the database answers; without it most gauges are absent.", ()),
    "patrol_queue_ready": ("Rows that could be claimed now.", ("queue", "lane")),
    "patrol_queue_oldest_seconds": (
        "For how long the first of them could have been.", ("queue", "lane")
    ),
    "patrol_parked": ("Rows that wait for a person: patrol doctor --retry.", ("queue",)),
    "patrol_unsealed_audit_events": ("Audit events that wait for the sealer.", ()),
    "patrol_store_frozen": ("1 for each store whose answers may not be acted on.", ("store",)),
    "patrol_heartbeat_age_seconds": ("Time since a process last reported.", ("name",)),
}  # fmt: skip


class _Scrape:
    """One answer; what prometheus-client's encoders take for a registry."""

    def __init__(self, folders: Iterable[Path], gauges: Iterable[Metric] = ()) -> None:
        self._folders, self._gauges = folders, gauges

    def collect(self) -> Iterator[Metric]:
        yield from collect(self._folders)
        yield from self._gauges


def is_allowed(settings: Settings, authorization: str | None) -> bool:
    """True for a request that may see the metrics, from its Authorization header."""
    if settings.metrics_open:
        return True
    scheme, _, token = (authorization or "").partition(" ")
    right = [token.encode() for token in settings.api_bearers]
    return authorised(token.encode("utf-8", "replace"), right) and scheme.lower() == "bearer"


def routes(services: Services) -> APIRouter:
    """`/metrics` of the web process."""
    router = APIRouter()
    settings = services.settings
    gauges = _Gauges(services)

    @router.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        """Answer a scrape."""
        if not is_allowed(settings, request.headers.get("authorization")):
            return JSONResponse(
                {"error": "A valid bearer token is required."}, 401,
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        scrape = _Scrape(services_of(settings.metrics_dir), gauges.read())
        body, content_type = _encoded(scrape, request.headers.get("accept"))
        return Response(body, media_type=content_type)

    return router


def _encoded(scrape: _Scrape, accept: str | None) -> tuple[bytes, str]:
    encode, content_type = choose_encoder(accept or "")
    return encode(scrape), content_type


class _Gauges:
    """Reads the database at most once a second, however often it is asked."""

    def __init__(self, services: Services) -> None:
        self._engine = services.engine
        self._lock = Lock()
        self._read, self._at = list[Metric](), float("-inf")

    def read(self) -> list[Metric]:
        with self._lock:
            if monotonic() - self._at >= _FRESH_SECONDS:
                self._read = list(self._look())
                self._at = monotonic()
            return self._read

    def _look(self) -> Iterator[Metric]:
        yield _gauge("patrol_build_info", [((__version__, platform.python_version()), 1)])
        try:
            with reader(self._engine).connect() as connection:
                vitals = read_vitals(connection)
        except SQLAlchemyError:
            yield _gauge("patrol_database_up", [((), 0)])
            return
        yield _gauge("patrol_database_up", [((), 1)])
        yield from _of(vitals)


def _of(vitals: Vitals) -> Iterator[Metric]:
    queues = vitals.queues
    yield _gauge("patrol_queue_ready", [((q.name, q.lane), q.ready) for q in queues])
    yield _gauge(
        "patrol_queue_oldest_seconds", [((q.name, q.lane), q.oldest_ms / 1000) for q in queues]
    )
    yield _gauge("patrol_parked", [((name,), count) for name, count in vitals.parked.items()])
    yield _gauge("patrol_unsealed_audit_events", [((), vitals.unsealed)])
    yield _gauge("patrol_store_frozen", [((store,), 1) for store in vitals.frozen])
    yield _gauge(
        "patrol_heartbeat_age_seconds",
        [((name,), age / 1000) for name, age in vitals.heartbeats.items()],
    )


def _gauge(name: str, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    text, labels = GAUGES[name]
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def serve_alone(settings: Settings, service: Path) -> ThreadingHTTPServer:
    """Serve one service's own counts at `PATROL_METRICS_PORT`, for a worker or beat whose data
    directory the web process does not share. The thread ends with the process."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
            elif not is_allowed(settings, self.headers.get("authorization")):
                self.send_error(401)
            else:
                body, content_type = _encoded(_Scrape([service]), self.headers.get("accept"))
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Scrapes are not worth a line."""

    server = ThreadingHTTPServer((settings.host, settings.metrics_port), Handler)
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
