"""up, web, worker, beat, mail: the long-running processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click
import uvicorn

from scanner import logs, metrics
from scanner.bootstrap import Services
from scanner.commands.common import services
from scanner.db.upgrade import upgrade_database
from scanner.embedded import mail_catcher
from scanner.embedded.ports import check_port_free
from scanner.embedded.supervisor import Supervisor, die_with_parent, mail_directory
from scanner.keyring import prepare_data_dir
from scanner.settings import Settings
from scanner.tasks import register, seal_all
from scanner.web.app import create_app
from scanner.web.scrape import serve_alone
from scanner.worker import CeleryWaker, make_app


def _prepare(role: str) -> Services:
    built = services()
    if "PATROL_SUPERVISED" in os.environ:
        die_with_parent(int(os.environ["PATROL_SUPERVISED"]))
    settings = built.settings
    # The mail catcher shows mails and knows no patterns; every other process masks what it logs.
    redact = None if role == "mail" else built.matcher.redact
    logs.configure(role, style=settings.log_format, level=settings.log_level, redact=redact)
    return built


def _start_counting(role: str, settings: Settings) -> Path:
    prepare_data_dir(settings.metrics_dir)
    return metrics.start(settings.metrics_dir, role)


def _show_counts(role: str, settings: Settings) -> None:
    """Count, and show it at a port of this process's own where one is set."""
    service = _start_counting(role, settings)
    # Under `patrol up` the web process shows the counts of all.
    if settings.metrics_port and "PATROL_SUPERVISED" not in os.environ:
        check_port_free(settings.host, settings.metrics_port, "PATROL_METRICS_PORT")
        serve_alone(settings, service)


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


def check_settings(built: Services) -> None:
    """Say here and now what a child process would say in its log."""
    settings = built.settings
    _ = built.database, built.matcher, built.sealer, built.email, built.guard, built.store
    _ = settings.all_hooks, settings.api_bearers, settings.admin_bearers, settings.service_bearers


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
    built = _prepare("web")
    settings = built.settings
    check_port_free(settings.host, settings.port, "PATROL_PORT")
    _start_counting("web", settings)
    app = create_app(built, CeleryWaker(make_app(settings)))
    # Its own logging would show paths and queries; web/access.py tells of each request instead.
    uvicorn.run(app, host=settings.host, port=settings.port, log_config=None, access_log=False)


@click.command()
@click.option("--concurrency", type=click.IntRange(1), default=2, show_default=True)
def worker(concurrency: int) -> None:
    """Take work from the database, woken by the broker."""
    built = _prepare("worker")
    check_settings(built)
    _show_counts("worker", built.settings)
    app = make_app(built.settings)
    register(app, built)
    app.worker_main(
        ["--quiet", "worker", f"--concurrency={concurrency}", "--loglevel=WARNING",
         "--without-gossip", "--without-mingle", "--without-heartbeat"]
    )  # fmt: skip


@click.command()
def beat() -> None:
    """Tick every second: due watches, lost work, sealing."""
    built = _prepare("beat")
    _show_counts("beat", built.settings)
    app = make_app(built.settings)
    app.Beat(loglevel="WARNING", quiet=True).run()


@click.command()
def mail() -> None:
    """Catch mail and show it on a page."""
    settings = _prepare("mail").settings
    mail_catcher.serve(mail_directory(settings), settings.smtp_port, settings.mail_port)
