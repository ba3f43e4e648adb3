"""patrol healthcheck: is the process in this container well?

It is asked every few seconds, so it looks at one sign of life and loads next to nothing; what is
wrong, `patrol doctor` says. Exit code 0 or 1, never another: Docker keeps 2 for itself.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable

import click

from scanner.alive import folder_of, require_alive
from scanner.errors import FinalError, PatrolError
from scanner.settings import Settings, load_settings
from scanner.text import printable

_ANSWER_SECONDS = 5.0
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (who listens everywhere, listens here)


def _ask(host: str, port: int, path: str) -> None:
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path, headers={"Host": f"localhost:{port}"})
        answer = connection.getresponse()
        said = answer.read(2_000).decode("utf-8", "replace")
    finally:
        connection.close()
    if answer.status != 200:
        raise FinalError(f"{path} answered {answer.status}: {said}")


def _web(settings: Settings) -> None:
    _ask(_LOOPBACK.get(settings.host, settings.host), settings.port, "/readyz")


def _mail(settings: Settings) -> None:
    _ask("127.0.0.1", settings.mail_port, "/")


def _worker(settings: Settings) -> None:
    require_alive(folder_of(settings.data_dir), "worker")


def _beat(settings: Settings) -> None:
    require_alive(folder_of(settings.data_dir), "beat")


_CHECKS: dict[str, Callable[[Settings], None]] = {
    "web": _web,
    "worker": _worker,
    "beat": _beat,
    "mail": _mail,
}


@click.command()
@click.argument("role", type=click.Choice(list(_CHECKS)))
def healthcheck(role: str) -> None:
    """Is the process of that ROLE, in this container, well? Exit code 1: no."""
    try:
        _CHECKS[role](load_settings())
    except (PatrolError, OSError, http.client.HTTPException) as error:
        said = str(error) if isinstance(error, PatrolError | OSError) else type(error).__name__
        click.echo(printable(said), err=True)
        raise click.exceptions.Exit(1) from None
