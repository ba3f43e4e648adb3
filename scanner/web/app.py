"""The HTTP side as a whole: each router is one file beside this one."""

from __future__ import annotations

from fastapi import FastAPI

from scanner import __version__
from scanner.bootstrap import Services
from scanner.ports import Waker
from scanner.web import accounts, api, health, hooks, introspection, scrape, tokens
from scanner.web.access import AccessLog
from scanner.web.caching import NoStore
from scanner.web.errors import answer_errors
from scanner.web.quota import Quota


def create_app(services: Services, waker: Waker, quota: Quota | None = None) -> FastAPI:
    """Build the ASGI app; `quota`: another than that of the settings."""
    app = FastAPI(title="Patrol", version=__version__, docs_url=None, redoc_url=None)
    app.state.body_timeout = services.settings.body_timeout
    app.add_middleware(NoStore)
    app.add_middleware(AccessLog)
    answer_errors(app)
    app.include_router(hooks.routes(services, waker))
    app.include_router(api.routes(services))
    quota = quota or Quota(services.database, services.settings.lookups_per_minute)
    app.include_router(tokens.routes(services, quota))
    app.include_router(accounts.routes(services))
    app.include_router(introspection.routes(services, quota))
    app.include_router(health.routes(services))
    app.include_router(scrape.routes(services))

    @app.get("/")
    def index() -> dict[str, str]:
        """Say what this is and where to go."""
        return {
            "service": "Patrol",
            "version": __version__,
            "openapi": "/openapi.json",
            "leaks": "/api/v1/leaks",
            "health": "/healthz",
        }

    return app
