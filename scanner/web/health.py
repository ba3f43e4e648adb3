"""Is the process alive, and may it be sent work? Asked by machines, every few seconds.

`/healthz` says that the process answers, and touches nothing. `/readyz` says whether what is sent
here will be done: its reasons are codes and sentences without names or numbers, for anybody may
ask. One look serves everybody for a second, so a storm of probes costs nothing; a database that
does not answer costs a probe two seconds, not ten.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from scanner.bootstrap import Services
from scanner.db import sealkeys
from scanner.db.chains import all_chains
from scanner.db.engine import reader
from scanner.db.heartbeats import BEAT, ROUND, WORKER
from scanner.db.keycheck import key_problem
from scanner.db.upgrade import has_current_schema
from scanner.db.vitals import Vitals, read_vitals
from scanner.errors import name_of

log = logging.getLogger(__name__)

_FRESH_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0
_SILENT_MS = 30_000  # beat and workers report every second

REASONS = {
    "database": "The database does not answer.",
    "schema": "The database's schema is another version's; run: patrol db upgrade",
    "keys": "A key is not the one this database was made with; run: patrol doctor",
    "disk": "The data directory's disk is full, or cannot be written.",
    "lag": "Work waits for too long; is there a worker? Run: patrol doctor",
    "beat": "No whole round of beat's was done for 30 seconds; see its log, or run: patrol doctor",
    "worker": "No worker has reported for 30 seconds: nothing is done.",
}
NOTES = {
    "frozen": "A token store is frozen: nothing is revoked there until a person releases it.",
    "beat": "Beat has done no whole round for 30 seconds; workers do it instead.",
}


@dataclass(frozen=True, slots=True)
class State:
    """Why the service is not ready (no reason: it is), and what else a person should know."""

    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Readiness:
    """Looks at most once a second. Lag and silence count only from `ready_grace` seconds after the
    start on: until then workers may be starting, or be working off what came while all was down."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._started = monotonic()
        self._state, self._looked = State(), float("-inf")
        self._look: asyncio.Task[State] | None = None

    async def state(self) -> State:
        """The state as it was within the last second."""
        if monotonic() - self._looked < _FRESH_SECONDS:
            return self._state
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._renew())
        try:
            # The look goes on when we stop waiting: the next probe waits for the same one.
            return await asyncio.wait_for(asyncio.shield(self._look), _PATIENCE_SECONDS)
        except TimeoutError:
            return State(("database",))

    async def _renew(self) -> State:
        state = await asyncio.to_thread(self._examine)
        if state.reasons != self._state.reasons:
            log.warning("readiness changed: %s", ", ".join(state.reasons) or "ready")
        self._state, self._looked = state, monotonic()
        return state

    def _examine(self) -> State:
        try:
            reasons = [*self._disk()]
            with reader(self._engine).connect() as connection:
                if not has_current_schema(connection):
                    return State((*reasons, "schema"))
                if self._has_wrong_keys(connection):
                    reasons.append("keys")
                vitals = read_vitals(connection)
        except SQLAlchemyError as error:
            log.warning("the database did not answer a probe: %s", name_of(error))
            return State((*reasons, "database"))
        reasons += self._silence(vitals)
        notes = ["frozen"] if vitals.frozen else []
        if "beat" not in reasons and self._is_silent(vitals, BEAT):
            notes.append("beat")
        return State(tuple(reasons), tuple(notes))

    def _has_wrong_keys(self, connection: Connection) -> bool:
        settings = self._services.settings
        return bool(
            key_problem(connection, "pepper", settings.pepper_ring)
            or key_problem(connection, "fingerprint", settings.fingerprint_ring)
            or key_problem(connection, sealkeys.PURPOSE, settings.seal_ring, may_be_all_new=True)
            or self._services.peppers.now().missing(all_chains(connection))
        )

    def _disk(self) -> Iterator[str]:
        settings = self._services.settings
        try:
            free = shutil.disk_usage(settings.data_dir).free
        except OSError:
            yield "disk"
            return
        if free < settings.min_free_bytes:
            yield "disk"

    @property
    def _is_starting(self) -> bool:
        return monotonic() - self._started < self._services.settings.ready_grace_seconds

    def _is_silent(self, vitals: Vitals, name: str) -> bool:
        return not self._is_starting and vitals.heartbeats.get(name, _SILENT_MS + 1) > _SILENT_MS

    def _silence(self, vitals: Vitals) -> Iterator[str]:
        settings = self._services.settings
        if self._is_starting:
            return
        if vitals.lag_ms > settings.ready_lag_seconds * 1000:
            yield "lag"
        if self._is_silent(vitals, ROUND):
            yield "beat"
        # One is enough: a worker that was taken away for good must not be missed for ever.
        workers = [age for name, age in vitals.heartbeats.items() if name.startswith(WORKER)]
        if min(workers, default=0) > _SILENT_MS:
            yield "worker"


def routes(services: Services) -> APIRouter:
    """The probes' routes."""
    router = APIRouter()
    readiness = Readiness(services)

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        """Say whether work that is accepted here will be done: 200, or 503 with the reasons."""
        state = await readiness.state()
        content: dict[str, Any] = {
            "status": "not ready" if state.reasons else "ready",
            "reasons": [{"code": code, "message": REASONS[code]} for code in state.reasons],
            "notes": [{"code": code, "message": NOTES[code]} for code in state.notes],
        }
        return JSONResponse(content, 503 if state.reasons else 200)

    return router
