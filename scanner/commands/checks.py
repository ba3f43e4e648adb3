"""What patrol doctor looks at: one function a connection, which says what it found or, when it is
wrong, what to do."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from secrets import token_hex

from sqlalchemy import Connection, func, select, text

from notifier.errors import DeliveryError
from scanner.bootstrap import Services
from scanner.broker import resolve
from scanner.db import audit, freezes, heartbeats
from scanner.db.clock import now_ms
from scanner.db.dialect import POSTGRESQL
from scanner.db.engine import reader
from scanner.db.heartbeats import BEAT, ROUND, WORKER
from scanner.db.vitals import WORK, read_vitals
from scanner.errors import ConfigurationError, PatrolError
from scanner.keyring import prepare_data_dir
from scanner.metrics import services_of
from scanner.model import Secret
from scanner.prove import prove
from scanner.redis_access import user_of
from scanner.slots import NAMES
from scanner.worker import make_app, queue_lengths

_SILENT_MS = 30_000  # workers report every five seconds
_MOST_SKEW_SECONDS = 5.0
_HOST_SECONDS = 5.0  # to reach the git host
_MEGABYTE = 1 << 20


class Concern(str):
    """A finding that is no failure, but that a person should know of."""

    __slots__ = ()


def _data_dir(built: Services) -> str:
    settings = built.settings
    prepare_data_dir(settings.data_dir)
    free = shutil.disk_usage(settings.data_dir).free
    if free < settings.min_free_bytes:
        raise ConfigurationError(
            f"only {free // _MEGABYTE} MB are free for {settings.data_dir}; make room, or set "
            "PATROL_MIN_FREE_BYTES"
        )
    return f"{settings.data_dir} can be written, {free // _MEGABYTE} MB are free"


def _settings(built: Services) -> str:
    settings = built.settings
    _ = settings.api_bearers, settings.admin_bearers, settings.service_bearers
    _ = built.sealer, built.guard
    return f"secrets are strong, {len(settings.all_hooks)} webhooks are known"


def _git(_built: Services) -> str:
    if shutil.which("git") is None:
        raise ConfigurationError("git is not installed; on Debian: apt-get install git")
    return "git is installed"


def _git_host(built: Services) -> str:
    url = built.settings.github_url
    failures: list[str] = []

    def reach() -> None:
        try:
            asyncio.run(_reach(built, url))
        except PatrolError as error:
            failures.append(str(error))

    # In a thread: nothing ends a question to DNS that hangs.
    reaching = threading.Thread(target=reach, daemon=True)
    reaching.start()
    reaching.join(_HOST_SECONDS)
    if reaching.is_alive():
        failures.append(f"It did not answer within {_HOST_SECONDS:g} seconds.")
    if failures:
        return Concern(f"{url}: {failures[0]} Check PATROL_GITHUB_URL and the network.")
    return f"{url} can be reached"


async def _reach(built: Services, url: str) -> None:
    parts = built.guard.check_url(url)
    port = parts.port or {"https": 443, "http": 80}[parts.scheme]
    host = str(parts.hostname)
    for address in await built.guard.resolve(host, port):
        try:
            _, writer = await asyncio.open_connection(address, port)
        except OSError:
            continue
        writer.close()
        await writer.wait_closed()
        return
    raise ConfigurationError("It takes no connection.")


def _database(built: Services) -> str:
    with reader(built.database).connect() as connection:
        began = time.perf_counter()
        connection.execute(text("SELECT 1"))
        latency = (time.perf_counter() - began) * 1000
        kind, durability = _durability(connection)
    return f"{kind}, {latency:.1f} ms away, {durability}; the schema is current"


def _durability(connection: Connection) -> tuple[str, str]:
    def ask(query: str) -> str:
        return str(connection.execute(text(query)).scalar_one())

    if connection.dialect.name == POSTGRESQL:
        version = ask("SHOW server_version").split()[0]
        return f"PostgreSQL {version}", f"synchronous_commit {ask('SHOW synchronous_commit')}"
    levels = {"2": "full", "3": "extra"}
    synchronous = ask("PRAGMA synchronous")
    return (
        f"SQLite {ask('SELECT sqlite_version()')}",
        f"journal {ask('PRAGMA journal_mode')}, synchronous {levels.get(synchronous, synchronous)}",
    )


def _clock(built: Services) -> str:
    with reader(built.engine).connect() as connection:
        before = time.time()
        theirs = now_ms(connection) / 1000
        ours = (before + time.time()) / 2
    return judge_clock(abs(ours - theirs))


def judge_clock(difference: float) -> str:
    """Say what it means that this machine's clock is so many seconds from the database's."""
    if difference > _MOST_SKEW_SECONDS:
        return Concern(
            f"this machine and the database disagree by {difference:.0f} s. Patrol goes by the "
            "database's clock; certificates and log lines go by this machine's: set it right"
        )
    return f"{difference * 1000:.0f} ms from the database's"


def _keys(built: Services) -> str:
    _ = built.database  # which is refused with the wrong ones
    settings = built.settings
    rings = (settings.pepper_ring, settings.fingerprint_ring, settings.seal_ring)
    newest = ", ".join(next(iter(ring)).id for ring in rings)
    return f"they are this database's; newest pepper, fingerprint and seal: {newest}"


def _patterns(built: Services) -> str:
    return f"{len(built.matcher.ruleset.patterns)} patterns compiled; the store answers for " + (
        ", ".join(sorted(built.bound))
    )


def _child(built: Services) -> str:
    try:
        reached = built.inspector.describe()
    finally:
        built.inspector.close()
    shown = {"no_network": "network", "no_files": "files", "no_new_privileges": "privileges"}
    kept = [what for name, what in shown.items() if not reached.get(name)]
    if kept:
        return Concern(
            f"packs are read in a child process, but this system lets it keep: {', '.join(kept)}; "
            "a newer kernel, or a container that may unshare, takes them away"
        )
    return "packs are read in a child process without network, files and new privileges"


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


def _work(built: Services) -> str:
    with reader(built.database).connect() as connection:
        vitals = read_vitals(connection)
        for name, table in WORK.items():
            query = select(func.count(), func.max(table.c.error)).where(table.c.state == "parked")
            count, error = connection.execute(query).one()
            if count:
                raise ConfigurationError(
                    f"{count} {name} are parked; one says: {error} "
                    "When the cause is mended: patrol doctor --retry"
                )
    ready, lag = sum(queue.ready for queue in vitals.queues), vitals.lag_ms / 1000
    if lag > built.settings.ready_lag_seconds:
        raise ConfigurationError(
            f"{ready} rows wait to be taken, the first for {lag:.0f} s; start a worker, or more"
        )
    return f"nothing is parked, {ready} rows wait to be taken"


def _processes(built: Services) -> str:
    with reader(built.database).connect() as connection:
        ages = heartbeats.ages(connection, now_ms(connection))
    alive = {name for name, age in ages.items() if age <= _SILENT_MS}
    known = {name for name in ages if name == BEAT or name.startswith(f"{WORKER}:")}
    if not known:
        return Concern("none has ever reported; start them: patrol up, or web, worker and beat")
    wrong = [*_deaf(alive), *_unbeaten(ages, alive)]
    silent = ", ".join(f"{name} for {ages[name] // 1000} s" for name in sorted(known - alive))
    if wrong:
        return Concern("; ".join([*wrong, *([f"silent: {silent}"] if silent else [])]))
    gone = f" (silent, perhaps taken away: {silent})" if silent else ""
    return f"beat, and a worker for every queue, reported within {_SILENT_MS // 1000} s{gone}"


def _deaf(alive: Collection[str]) -> Iterator[str]:
    prefix = f"{WORKER}:"
    heard = {
        queue for name in alive if name.startswith(prefix)
        for queue in name.removeprefix(prefix).split(",")
    }  # fmt: skip
    deaf = [name for name in NAMES if name not in heard]
    if len(deaf) == len(NAMES):
        yield "no worker has reported for 30 seconds; start: patrol worker"
    elif deaf:
        yield f"nobody works on {', '.join(deaf)}; start: patrol worker --queues {','.join(deaf)}"


def _unbeaten(ages: Mapping[str, int], alive: Collection[str]) -> Iterator[str]:
    if BEAT in alive:
        return
    does = "workers do its round" if ROUND in alive else "nothing is scheduled or swept"
    ever = "has been silent for 30 seconds" if BEAT in ages else "has never reported"
    yield f"beat {ever}, {does}; start: patrol beat"


def _metrics(built: Services) -> str:
    folder = built.settings.metrics_dir
    prepare_data_dir(folder)
    names = ", ".join(path.name for path in services_of(folder))
    access = "anybody" if built.settings.metrics_open else "whoever has the API's token"
    return f"counted in {folder} by {names or 'nobody yet'}; {access} may read /metrics"


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


def _ledger(built: Services) -> str:
    redis = built.redis_ledger
    return "in the database" if redis is None else f"{redis.check()} answers before the database"


def _mail(built: Services) -> str:
    try:
        built.email.check()
    except DeliveryError as error:
        raise ConfigurationError(
            f"{built.email.address}: {error}; start patrol up, or set PATROL_SMTP_URL"
        ) from None
    return f"{built.email.address} answers"


CHECKS: tuple[tuple[str, Callable[[Services], str]], ...] = (
    ("data directory", _data_dir),
    ("settings", _settings),
    ("git", _git),
    ("git host", _git_host),
    ("database", _database),
    ("clock", _clock),
    ("keys", _keys),
    ("patterns", _patterns),
    ("parsing child", _child),
    ("token store", _store),
    ("work", _work),
    ("processes", _processes),
    ("metrics", _metrics),
    ("audit trail", _audit),
    ("broker", _broker),
    ("blob ledger", _ledger),
    ("mail server", _mail),
)
