"""patrol doctor: each line says what was looked at and, when it is wrong, what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from secrets import token_hex

import click
from sqlalchemy import func, select

from notifier.errors import DeliveryError
from scanner.bootstrap import Services
from scanner.broker import resolve, user_of
from scanner.commands.common import services, trouble
from scanner.db import audit, freezes, heartbeats, leases
from scanner.db.clock import now_ms
from scanner.db.engine import reader
from scanner.db.schema import incidents, outbox, scans, sealed_candidates
from scanner.errors import ConfigurationError, PatrolError
from scanner.keyring import prepare_data_dir
from scanner.model import Secret
from scanner.prove import prove
from scanner.slots import NAMES
from scanner.tasks import BEAT_SILENT_MS, STAND_IN
from scanner.text import printable
from scanner.worker import make_app, queue_lengths

_SILENT_MS, _ROUND_MS = 30_000, 5_000  # workers report every five seconds


def _data_dir(built: Services) -> str:
    prepare_data_dir(built.settings.data_dir)
    return f"{built.settings.data_dir} can be written"


def _settings(built: Services) -> str:
    settings = built.settings
    _ = settings.api_bearers, settings.admin_bearers, settings.service_bearers
    _ = built.sealer, built.guard
    return f"secrets are strong, {len(settings.all_hooks)} webhooks are known"


def _git(_built: Services) -> str:
    if shutil.which("git") is None:
        raise ConfigurationError("git is not installed; on Debian: apt-get install git")
    return "git is installed"


def _database(built: Services) -> str:
    _ = built.database
    return "the schema is current and the keys are right"


def _patterns(built: Services) -> str:
    return f"{len(built.matcher.ruleset.patterns)} patterns compiled; the store answers for " + (
        ", ".join(sorted(built.bound))
    )


def _child(built: Services) -> str:
    built.inspector.warm()
    isolated = not built.inspector.has_network
    built.inspector.close()
    return "packs are read in a child process " + (
        "without network" if isolated else "(the system does not let it drop its network)"
    )


def _store(built: Services) -> str:
    store = built.store
    with reader(built.database).connect() as connection:
        if freezes.is_frozen(connection, store.name):
            raise ConfigurationError(
                "revocation is frozen; repair the store, then: "
                f"patrol policy set --release-store {store.name}"
            )
    # One that nobody issued, and beside it the control: it must know neither.
    prove(store, [Secret(token_hex(32).encode())])
    can = store.abilities
    tells = "tells reasons" if can.tells_reason else "tells active from inactive"
    by = "id" if can.revokes_by == "id" else "the raw token"
    return f"{store.name} answers, knows no token that nobody issued, {tells}, revokes by {by}"


_WORK = {
    "scans": scans,
    "sealed tokens": sealed_candidates,
    "incidents": incidents,
    "notices": outbox,
}


def _work(built: Services) -> str:
    with reader(built.database).connect() as connection:
        for name, table in _WORK.items():
            query = select(func.count(), func.max(table.c.error)).where(table.c.state == "parked")
            count, error = connection.execute(query).one()
            if count:
                raise ConfigurationError(
                    f"{count} {name} are parked; one says: {error} "
                    "When the cause is mended: patrol doctor --retry"
                )
    return "nothing is parked"


def _audit(built: Services) -> str:
    with reader(built.database).connect() as connection:
        result = audit.verify(connection)
    if result.problems:
        raise ConfigurationError(
            f"the trail was changed: {result.problems[0]}; all of it: patrol audit verify"
        )
    return f"{result.sealed} events sealed, {result.unsealed} waiting"


def _broker(built: Services) -> str:
    broker = resolve(built.settings)
    lengths, seconds = queue_lengths(make_app(built.settings), broker)
    waiting = sum(lengths.values())
    if not broker.is_redis:
        return f"{broker.address}, {waiting} wakes wait"
    how = "over TLS, its certificate is verified" if broker.tls else "without TLS"
    user = user_of(broker.url)
    who = f"as {user}" if user else "as its default user"
    return f"{broker.address} answers {who} in {seconds * 1000:.1f} ms, {how}; {waiting} wakes wait"


def _workers(built: Services) -> str:
    with reader(built.database).connect() as connection:
        ages = heartbeats.ages(connection, now_ms(connection))
    alive = [name for name, age in ages.items() if age < _SILENT_MS]
    prefix = f"{heartbeats.WORKER}:"
    heard = {
        queue for name in alive if name.startswith(prefix)
        for queue in name.removeprefix(prefix).split(",")
    }  # fmt: skip
    deaf = [name for name in NAMES if name not in heard]
    if len(deaf) == len(NAMES):
        raise ConfigurationError("no worker has reported for 30 seconds; start: patrol worker")
    if deaf:
        raise ConfigurationError(
            f"nobody works on {', '.join(deaf)}; start: patrol worker --queues {','.join(deaf)}"
        )
    if ages.get(STAND_IN, _SILENT_MS) < BEAT_SILENT_MS + _ROUND_MS:
        return "every queue has one; beat is silent, they do its round; start: patrol beat"
    return "every queue has one"


def _mail(built: Services) -> str:
    try:
        built.email.check()
    except DeliveryError as error:
        raise ConfigurationError(
            f"{built.email.address}: {error}; start patrol up, or set PATROL_SMTP_URL"
        ) from None
    return f"{built.email.address} answers"


_CHECKS: tuple[tuple[str, Callable[[Services], str]], ...] = (
    ("data directory", _data_dir),
    ("settings", _settings),
    ("git", _git),
    ("database", _database),
    ("patterns", _patterns),
    ("parsing child", _child),
    ("token store", _store),
    ("work", _work),
    ("audit trail", _audit),
    ("broker", _broker),
    ("workers", _workers),
    ("mail server", _mail),
)


@click.command()
@click.option("--retry", is_flag=True, help="first put all that is parked back to work")
def doctor(*, retry: bool) -> None:
    """Check every connection and say what to do; exit code 2 when something is wrong."""
    built = services()
    if retry:
        with built.database.begin() as connection:
            count = sum(leases.retry_parked(connection, table) for table in _WORK.values())
        click.echo(f"{count} parked rows go back to work.")
    failed = False
    for name, check in _CHECKS:
        try:
            click.echo(f"ok    {name}: {check(built)}")
        except Exception as error:
            said = str(error) if isinstance(error, PatrolError) else trouble(error)
            if said is None:
                raise
            failed = True
            click.echo(f"FAIL  {name}: {printable(said)}")
    if failed:
        raise click.exceptions.Exit(2)
