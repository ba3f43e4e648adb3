"""What goes wrong: each fault begins, lasts for a while, and ends; then everything must recover."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from redis.exceptions import RedisError

from scanner.db.dialect import POSTGRESQL, SQLITE
from tests.chaos.issuer import answers_nobody
from tests.chaos.mailbox import Mood
from tests.chaos.programs import Program
from tests.chaos.world import HTTP, LEASE_SECONDS, World
from tests.servers import token_service
from tests.servers.token_service import TokenService

_SKEW = 600  # seconds

Step = Iterator[None]


@dataclass(frozen=True)
class Fault:
    """`run` begins it, yields while it lasts, and ends it."""

    name: str
    run: Callable[[World, random.Random], Step]
    seconds: tuple[float, float] = (1.0, 4.0)  # how long it lasts, at least and at most
    only: str | None = None  # the one kind of database or store that has it
    why_not: Callable[[World], str | None] = lambda _world: None


def _any_worker(world: World, rng: random.Random) -> Program:
    return rng.choice(world.workers)


def _killed(*pick: str) -> Callable[[World, random.Random], Step]:
    def run(world: World, rng: random.Random) -> Step:
        chosen = [world.programs[name] for name in pick] or [_any_worker(world, rng)]
        for program in chosen:
            program.kill()
        yield
        for program in chosen:
            program.start()

    return run


def _child_killed(world: World, rng: random.Random) -> Step:
    for program in world.workers:
        program.kill_a_child()
    yield
    _any_worker(world, rng).kill_a_child()


def _paused(world: World, rng: random.Random) -> Step:
    """Longer than the lease: another worker takes over, and this one goes on where it was."""
    program = _any_worker(world, rng)
    program.pause()
    yield
    program.resume()


def _paused_web(world: World, _rng: random.Random) -> Step:
    world.programs["web"].pause()
    yield
    world.programs["web"].resume()


def _skewed(seconds: int) -> Callable[[World, random.Random], Step]:
    def run(world: World, rng: random.Random) -> Step:
        """SQLite's time is the machine's: there all clocks go wrong at once."""
        chosen = list(world.programs.values())
        if world.database_kind == POSTGRESQL:
            chosen = rng.sample(chosen, rng.randint(1, len(chosen)))
        for program in chosen:
            program.skew(seconds)
        yield
        for program in chosen:
            program.skew(0)

    return run


def _postgres_killed(world: World, _rng: random.Random) -> Step:
    assert world.postgres is not None
    world.postgres.kill()
    yield
    world.postgres.start()


def _postgres_hangs(world: World, _rng: random.Random) -> Step:
    assert world.postgres is not None
    world.postgres.pause()
    yield
    world.postgres.resume()


def _disk_full(world: World, _rng: random.Random) -> Step:
    assert world.disk is not None
    world.disk.fill()
    yield
    world.disk.make_room()
    if world.postgres is not None:
        world.postgres.start()  # it may have given up


def _redis_flushed(world: World, _rng: random.Random) -> Step:
    assert world.redis is not None
    world.redis.flush()
    yield
    world.redis.flush()


def _redis_killed(world: World, _rng: random.Random) -> Step:
    assert world.redis is not None
    world.redis.kill()
    yield
    world.redis.start()


def _redis_full(world: World, _rng: random.Random) -> Step:
    assert world.redis is not None
    world.redis.fill()
    yield
    world.redis.make_room()


def _redis_hangs(world: World, _rng: random.Random) -> Step:
    assert world.redis is not None
    world.redis.pause()
    yield
    world.redis.resume()


def _wakes_lost(world: World, _rng: random.Random) -> Step:
    """The embedded broker's files are gone."""

    def lose() -> None:
        for path in (world.data / "broker" / "queue").glob("*"):
            with suppress(OSError):
                path.unlink()

    lose()
    yield
    lose()


def _mail_gone(world: World, _rng: random.Random) -> Step:
    world.mailbox.go_away()
    yield
    world.mailbox.come_back()


def _mail_moody(mood: Mood) -> Callable[[World, random.Random], Step]:
    def run(world: World, _rng: random.Random) -> Step:
        world.mailbox.mood = mood
        yield
        world.mailbox.mood = Mood.TAKES

    return run


def _service(world: World) -> TokenService:
    assert world.service is not None
    return world.service


def _store_gone(world: World, _rng: random.Random) -> Step:
    _service(world).stop()
    yield
    _service(world).start()


def _store_hangs(world: World, _rng: random.Random) -> Step:
    release = threading.Event()
    with _faulty(world, token_service.slow(release)):
        yield
    release.set()


def _store_fails(world: World, _rng: random.Random) -> Step:
    with _faulty(world, token_service.status(500)):
        yield


def _store_answers_nobody(world: World, _rng: random.Random) -> Step:
    with _faulty(world, answers_nobody):
        yield


@contextmanager
def _faulty(world: World, fault: token_service.Fault) -> Iterator[None]:
    """Every request meets the fault."""
    service = _service(world)
    service.faults = [fault] * 100_000
    yield
    service.faults = []


def _store_forgets(world: World, _rng: random.Random) -> Step:
    """It says that it revoked, and did not."""
    _service(world).forgets = True
    yield
    _service(world).forgets = False


def _git_gone(world: World, _rng: random.Random) -> Step:
    world.stop_git()
    yield
    world.start_git()


def _everything_killed(world: World, rng: random.Random) -> Step:
    """What a power cut does to the processes, in any order."""
    chosen = list(world.programs.values())
    rng.shuffle(chosen)
    for program in chosen:
        program.kill()
    with suppress(RedisError):
        for server in (world.redis, world.postgres):
            if server is not None:
                server.kill()
    yield
    for server in (world.postgres, world.redis):
        if server is not None:
            server.start()
    for program in chosen:
        program.start()


def _no_disk(world: World) -> str | None:
    return None if world.disk is not None else "a disk of its own needs root and unshare"


def _no_clock(world: World) -> str | None:
    return None if world.clock is not None else "a clock apart needs a C compiler (Debian: tcc)"


_LEASE = (LEASE_SECONDS + 2.0, LEASE_SECONDS + 4.0)

FAULTS: Sequence[Fault] = (
    Fault("kill -9 a worker", _killed()),
    Fault("kill -9 both workers and beat", _killed("worker-1", "worker-2", "beat")),
    Fault("kill -9 a worker's child", _child_killed),
    Fault("kill -9 web", _killed("web")),
    Fault("kill -9 beat", _killed("beat")),
    Fault("kill -9 everything at once", _everything_killed),
    Fault("a worker paused past its lease", _paused, _LEASE),
    Fault("web paused", _paused_web),
    Fault("clocks 10 minutes fast", _skewed(_SKEW), (4.0, 8.0), why_not=_no_clock),
    Fault("clocks 10 minutes slow", _skewed(-_SKEW), (4.0, 8.0), why_not=_no_clock),
    Fault("the database's disk full", _disk_full, (2.0, 5.0), why_not=_no_disk),
    Fault("PostgreSQL kill -9", _postgres_killed, only=POSTGRESQL),
    Fault("PostgreSQL hangs", _postgres_hangs, only=POSTGRESQL),
    Fault("Redis FLUSHALL", _redis_flushed, only=POSTGRESQL),
    Fault("Redis gone", _redis_killed, (2.0, 6.0), only=POSTGRESQL),
    Fault("Redis full", _redis_full, (2.0, 6.0), only=POSTGRESQL),
    Fault("Redis hangs", _redis_hangs, (2.0, 6.0), only=POSTGRESQL),
    Fault("the broker's files removed", _wakes_lost, only=SQLITE),
    Fault("SMTP gone", _mail_gone),
    Fault("SMTP greylists", _mail_moody(Mood.GREYLISTS)),
    Fault("SMTP takes mail, hangs up", _mail_moody(Mood.DROPS)),
    Fault("SMTP hangs", _mail_moody(Mood.HANGS)),
    Fault("the git host gone", _git_gone),
    Fault("the HTTP store gone", _store_gone, only=HTTP),
    Fault("the HTTP store hangs", _store_hangs, only=HTTP),
    Fault("the HTTP store answers 500", _store_fails, only=HTTP),
    Fault("the HTTP store's answers lost", _store_answers_nobody, only=HTTP),
    Fault("the HTTP store forgets to revoke", _store_forgets, only=HTTP),
)


def choose(
    world: World, number: int, rng: random.Random, only: Sequence[str]
) -> tuple[list[Fault], dict[str, str]]:
    """Return so many faults whose names hold one of `only`, each kind about as often; and the kinds
    that cannot be had here."""
    mine = [
        fault for fault in FAULTS if fault.only in (None, world.database_kind, world.store_kind)
    ]
    skipped = {fault.name: why for fault in mine if (why := fault.why_not(world)) is not None}
    possible = [fault for fault in mine if fault.name not in skipped]
    possible = [fault for fault in possible if any(words in fault.name for words in only)]
    if not possible:
        raise SystemExit(f"no fault that can be had here is called like {' or '.join(only)}")
    chosen: list[Fault] = []
    while len(chosen) < number:
        rng.shuffle(possible)
        chosen += possible
    return chosen[:number], skipped
