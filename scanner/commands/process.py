"""How every long-running process begins."""

from __future__ import annotations

import os
from pathlib import Path

from scanner import logs, metrics
from scanner.bootstrap import Services
from scanner.commands.common import services
from scanner.embedded.ports import check_port_free
from scanner.embedded.supervisor import die_with_parent
from scanner.keyring import prepare_data_dir
from scanner.settings import Settings


def prepare(role: str) -> Services:
    """Services and logging for a process of this role; it ends with the one that started it."""
    built = services()
    if "PATROL_SUPERVISED" in os.environ:
        die_with_parent(int(os.environ["PATROL_SUPERVISED"]))
    settings = built.settings
    # The mail catcher shows mails and knows no patterns; every other process masks what it logs.
    redact = None if role == "mail" else built.matcher.redact
    logs.configure(role, style=settings.log_format, level=settings.log_level, redact=redact)
    return built


def check_settings(built: Services) -> None:
    """Say here and now what a child process would say in its log."""
    settings = built.settings
    _ = built.database, built.matcher, built.sealer, built.email, built.guard, built.store
    _ = settings.all_hooks, settings.api_bearers, settings.admin_bearers, settings.service_bearers


def start_counting(role: str, settings: Settings) -> Path:
    """Count into files of this service's own; returns their folder."""
    prepare_data_dir(settings.metrics_dir)
    return metrics.start(settings.metrics_dir, role)


def shows_counts(settings: Settings) -> bool:
    """Whether this process shows its counts at a port of its own, which is checked. Under
    `patrol up` the web process shows the counts of all."""
    if not settings.metrics_port or "PATROL_SUPERVISED" in os.environ:
        return False
    check_port_free(settings.host, settings.metrics_port, "PATROL_METRICS_PORT")
    return True
