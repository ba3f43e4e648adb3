"""up, web, worker, beat, mail: the long-running processes."""

from __future__ import annotations

import logging
import os
import signal

import click
import uvicorn

from scanner.bootstrap import Services
from scanner.commands.common import services
from scanner.db.upgrade import upgrade_database
from scanner.embedded import mail_catcher
from scanner.embedded.ports import check_port_free
from scanner.embedded.supervisor import Supervisor, die_with_parent, mail_directory
from scanner.tasks import register, seal_all
from scanner.web.app import create_app
from scanner.worker import CeleryWaker, make_app


def _prepare(built: Services) -> Services:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    if "PATROL_SUPERVISED" in os.environ:
        die_with_parent()
    return built


@click.command()
def up() -> None:
    """Run everything on this machine, on SQLite, until Ctrl-C."""
    built = services()
    upgrade_database(built.engine)
    _ = built.database, built.matcher
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with Supervisor(built.settings) as supervisor:
        addresses(built)
        try:
            supervisor.wait()
        except KeyboardInterrupt:
            click.echo("Stopping.")
    seal_all(built)


def addresses(built: Services) -> None:
    """Print where things are."""
    settings = built.settings
    click.echo(f"API       {settings.base_url}/  (token: {settings.secret_file('api_token')})")
    click.echo(f"Webhook   {settings.base_url}/webhooks/github")
    if settings.smtp_url is None:
        click.echo(f"Mail      http://127.0.0.1:{settings.mail_port}/")
    click.echo("Ctrl-C stops.")


@click.command()
def web() -> None:
    """Serve hooks and the API."""
    built = _prepare(services())
    settings = built.settings
    check_port_free(settings.host, settings.port, "PATROL_PORT")
    app = create_app(built, CeleryWaker(make_app(settings)))
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning")


@click.command()
@click.option("--concurrency", default=2, show_default=True)
def worker(concurrency: int) -> None:
    """Take work from the database, woken by the broker."""
    built = _prepare(services())
    _ = built.database
    app = make_app(built.settings)
    register(app, built)
    app.worker_main(
        ["worker", f"--concurrency={concurrency}", "--loglevel=WARNING", "--without-gossip",
         "--without-mingle", "--without-heartbeat"]
    )  # fmt: skip


@click.command()
def beat() -> None:
    """Tick every second: due watches, lost work, sealing."""
    built = _prepare(services())
    app = make_app(built.settings)
    app.Beat(loglevel="WARNING", quiet=True).run()


@click.command()
def mail() -> None:
    """Catch mail and show it on a page."""
    settings = _prepare(services()).settings
    mail_catcher.serve(mail_directory(settings), settings.smtp_port, settings.mail_port)
