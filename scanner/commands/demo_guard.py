"""What the demo may touch: this machine, and nothing that anybody else put there."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from kombu.utils.url import maybe_sanitize_url
from sqlalchemy import Connection, inspect, select
from sqlalchemy.engine import make_url

from scanner.bootstrap import Services
from scanner.db.engine import reader
from scanner.db.schema import organisations, repositories
from scanner.db.upgrade import has_current_schema
from scanner.errors import ConfigurationError
from scanner.settings import Settings

ORGANISATION = "Contoso"
REPOSITORIES = "demo/"
_ENGINES = ("database_url", "broker_url")


def refuse_real_services(settings: Settings, *, on_these_engines: bool) -> None:
    """The story must reach nobody's real database, workers, token service or mailboxes.

    `on_these_engines`: the database and the broker that are set may be used, on this machine.
    """
    for name in ("smtp_url", "store", *(() if on_these_engines else _ENGINES)):
        if getattr(settings, name) is not None:
            raise ConfigurationError(
                f"The demo is for this machine alone; unset PATROL_{name.upper()} to run it."
            )
    for name in _ENGINES:
        url = getattr(settings, name)
        if url is not None and not _is_here(url.get_secret_value()):
            raise ConfigurationError(
                f"PATROL_{name.upper()} is not on this machine's loopback; the demo stays there."
            )


def _is_here(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme.startswith("sqlite") or "+socket" in parts.scheme or parts.scheme == "unix":
        return True
    if "host=" in parts.query or "hostaddr=" in parts.query:  # it counts more than what we see
        return False
    host = parts.hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_others_data(built: Services) -> None:
    """Before anything is written: the database is empty, or holds an earlier demo and no more."""
    with reader(built.engine).connect() as connection:
        if not inspect(connection).get_table_names():
            return
        if not has_current_schema(connection) or _is_somebodys(connection):
            raise ConfigurationError(
                f"{_address(built)} holds more than a demo left there; give it a new database."
            )


def _is_somebodys(connection: Connection) -> bool:
    others = select(organisations.c.id).where(organisations.c.name != ORGANISATION)
    watched = select(repositories.c.id).where(~repositories.c.name.startswith(REPOSITORIES))
    return any(connection.execute(query.limit(1)).first() for query in (others, watched))


def _address(built: Services) -> str:
    url = make_url(built.settings.database)
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def engines(built: Services) -> list[str]:
    """Lines that say what the demo runs on, without passwords."""
    broker = built.settings.broker_url
    shown = "the embedded one" if broker is None else maybe_sanitize_url(broker.get_secret_value())
    return [f"Database  {_address(built)}", f"Broker    {shown}"]
