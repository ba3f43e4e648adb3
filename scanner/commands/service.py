"""up, web, beat, mail: the long-running processes."""

from __future__ import annotations

import signal

import click
import uvicorn

from scanner import alive
from scanner.bootstrap import Services
from scanner.commands.common import services
from scanner.commands.process import check_settings, prepare, shows_counts, start_counting
from scanner.db.upgrade import upgrade_database
from scanner.embedded import mail_catcher
from scanner.embedded.ports import check_port_free
from scanner.embedded.supervisor import Supervisor, mail_directory
from scanner.rounds import seal_all
from scanner.tasks import register
from scanner.web.app import create_app
from scanner.web.scrape import serve_alone
from scanner.web.serving import server_config
from scanner.worker import CeleryWaker, make_app


@click.command()
def up() -> None:
    """Run everything on this machine, on SQLite, until Ctrl-C."""
    built = services()
    upgrade_database(built.engine)
    check_settings(built)
    stop_on_signals()
    with Supervisor(built.settings) as supervisor:
        stay(built, supervisor)
    seal_all(built)


def stop_on_signals() -> None:
    """Let SIGINT and SIGTERM end the command, even where a shell started it in the background and
    told it to ignore them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def stay(built: Services, supervisor: Supervisor) -> None:
    """Print where things are, and stay until a signal or a child's end."""
    try:
        _print_addresses(built)
        supervisor.wait()
    except KeyboardInterrupt:
        click.echo("Stopping.")


def _print_addresses(built: Services) -> None:
    settings = built.settings
    click.echo(f"API       {settings.base_url}/  (token: {settings.secret_file('api_token')})")
    click.echo(f"Webhook   {settings.base_url}/webhooks/github")
    if settings.smtp_url is None:
        click.echo(f"Mail      http://127.0.0.1:{settings.mail_port}/")
    click.echo("Ctrl-C stops.")


@click.command()
def web() -> None:
    """Serve hooks and the API."""
    built = prepare("web")
    settings = built.settings
    check_port_free(settings.host, settings.port, "PATROL_PORT")
    start_counting("web", settings)
    app = create_app(built, CeleryWaker(make_app(settings)))
    uvicorn.Server(server_config(app, host=settings.host, port=settings.port)).run()


@click.command()
def beat() -> None:
    """Tick every second: due watches, lost work, sealing."""
    built = prepare("beat")
    check_settings(built)
    service = start_counting("beat", built.settings)
    if shows_counts(built.settings):
        serve_alone(built.settings, service)
    folder = alive.folder_of(built.settings.data_dir)
    alive.begin(folder, "beat", ["round"])
    app = make_app(built.settings)
    register(app, built, CeleryWaker(app), well=alive.Sign(folder, "beat", "round").well)
    app.Beat(loglevel="WARNING", quiet=True).run()


@click.command()
@click.option("--host", default=mail_catcher.HOST, show_default=True, help="where to listen; the "
              "pages show every mail to whoever reaches them")  # fmt: skip
def mail(host: str) -> None:
    """Catch mail and show it on a page."""
    settings = prepare("mail").settings
    mail_catcher.serve(mail_directory(settings), settings.smtp_port, settings.mail_port, host)
