"""make chaos: planted leaks, real processes, faults; then every promise is looked at.

    python -m tests.chaos.run --leaks 1000 --faults 50 --database postgresql

Everything is on loopback, in folders of its own, and stops by itself. The same seed gives the same
pushes and the same faults in the same order; what they meet depends on the machine.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from scanner.db import audit
from scanner.db.dialect import POSTGRESQL, SQLITE
from scanner.db.engine import reader
from tests.chaos import disk, table, verdict
from tests.chaos.deliveries import Deliveries
from tests.chaos.faults import Fault, choose
from tests.chaos.stream import Planted, Stream
from tests.chaos.table import Window
from tests.chaos.verdict import Verdict
from tests.chaos.world import BUILTIN, HTTP, World
from tests.reliability.minutes import end_pauses

_RECOVER_SECONDS = 60.0
_REST_SECONDS = 180.0
_HOURS_AFTER = 20.0  # seconds of rest after which pauses that are left are cut short
_STOP_SECONDS = 30.0
_SEAL_SECONDS = 15.0


class Run:
    """One run: its world, its stream of leaks, what was seen on the way."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.began = time.monotonic()
        self.windows: list[Window] = []
        self.notes: list[str] = []

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f}  {text}", flush=True)

    @property
    def is_late(self) -> bool:
        return time.monotonic() - self.began > self.options.seconds

    def __call__(self) -> tuple[Verdict, list[tuple[str, ...]]]:
        options = self.options
        faulty, pushing, delivering = (random.Random(f"{options.seed} {n}") for n in range(3))
        with World(options.database, options.store) as world:
            key = world.services.settings.all_hooks[0].secrets[0].get_secret_value()
            faults, skipped = choose(world, options.faults, faulty, options.only or [""])
            for name, why in skipped.items():
                self.say(f"not tried: {name}: {why}")
            with Deliveries(world.url, key, delivering) as deliveries:
                root = world.folder / "served"
                stream = Stream(
                    world.services, world.issuer, root, deliveries, options.leaks, pushing
                )
                self.say(f"{len(stream.planted)} tokens issued")
                with stream:
                    self._break(world, stream, faults, faulty)
                    self._rest(world, stream, deliveries)
                self.say(f"pushes: {_counted(stream.counts)}")
                self.say(f"webhooks by answer: {_counted(deliveries.counts)}")
                self.notes += [f"webhook refused: {text}" for text in deliveries.refused]
            found = self._judge(world, stream.planted)
            found.left += self._stop(world)
            if options.logs is not None:
                self._keep(world, options.logs)
        return found, table.rows(self.windows, found, skipped)

    def _break(self, world: World, stream: Stream, faults: list[Fault], rng: random.Random) -> None:
        leaks = [len(part) for part in _parts(self.options.leaks, len(faults))]
        for number, (fault, share) in enumerate(zip(faults, leaks, strict=True)):
            if self.is_late:
                self.notes.append(f"time was up after {number} faults")
                break
            seconds = rng.uniform(*fault.seconds)
            stream.leak(share, number, seconds)
            steps = fault.run(world, rng)
            next(steps)
            time.sleep(seconds)  # the fault lasts
            with suppress(StopIteration):
                next(steps)
            if not world.until("", lambda: stream.is_idle and world.answers(), _RECOVER_SECONDS):
                self.notes.append(f"web did not come back after: {fault.name}")
            broken = self._trail(world)
            self.windows.append(Window(fault.name, share, broken))
            self.say(f"{number + 1:3}. {fault.name}, {seconds:.1f} s, {share} leaks")

    def _trail(self, world: World) -> int:
        """How many problems the audit trail has now."""
        try:
            with world.looking() as engine, reader(engine).connect() as connection:
                return len(audit.verify(connection).problems)
        except SQLAlchemyError as error:
            self.notes.append(f"the trail could not be read: {type(error).__name__}")
            return 1

    def _rest(self, world: World, stream: Stream, deliveries: Deliveries) -> None:
        """Let everything come to its end: minutes go by, what waits for hours is due."""
        stream.heal()
        began = time.monotonic()
        hurried = began

        def is_done() -> bool:
            nonlocal hurried
            with suppress(SQLAlchemyError), world.looking() as engine:
                with reader(engine).connect() as connection:
                    left = verdict.unfinished(connection)
                    unsealed = audit.verify(connection).unsealed if not left else 1
                if not (left or unsealed or deliveries.left) and self._healed(world, stream):
                    return True
                if time.monotonic() - max(began, hurried) > _HOURS_AFTER and not deliveries.left:
                    hurried = time.monotonic()
                    self.say(f"hours pass; {len(left)} rows wait")
                    end_pauses(engine)
            return False

        if not world.until("rest", is_done, _REST_SECONDS):
            self.notes.append("it did not come to rest")
        if not world.until("readiness", world.is_ready, 10):
            self.notes.append("/readyz does not say ready")
        self.say("at rest")

    @staticmethod
    def _healed(world: World, stream: Stream) -> bool:
        """True when what only the watch list sees was seen."""
        return not verdict.look(world, stream.planted).lost

    def _judge(self, world: World, planted: list[Planted]) -> Verdict:
        until = time.monotonic() + _SEAL_SECONDS
        # A watch may still see a token again: one more event, which is sealed within a second.
        while (found := verdict.look(world, planted)).audit and time.monotonic() < until:
            time.sleep(0.2)
        found.traces = verdict.search(world, planted, self.say)
        # No fault here is a reason for a program to give up.
        self.notes += [
            f"{name} ended by itself: {words.splitlines()[-1:]}"
            for name, words in world.warden.restarts
        ]
        return found

    def _stop(self, world: World) -> list[str]:
        left = [
            f"{program.name} did not stop in {_STOP_SECONDS:g} s"
            for program in world.programs.values()
            if not program.stop(_STOP_SECONDS)
        ]
        return left + [line for program in world.programs.values() for line in program.left()]

    def _keep(self, world: World, folder: Path) -> None:
        shutil.copytree(world.logs, folder, dirs_exist_ok=True)
        if world.postgres is not None:
            (folder / "postgresql.log").write_text(world.postgres.log())
        ends = (f"{name}\n{words}\n" for name, words in world.warden.restarts)
        (folder / "ended-by-themselves").write_text("\n".join(ends))


def _parts(total: int, number: int) -> list[range]:
    """Cut `total` into parts that differ by one at most."""
    return [range(total * n // number, total * (n + 1) // number) for n in range(number)]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "none"


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--leaks", type=int, default=1_000)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--database", choices=(SQLITE, POSTGRESQL), default=POSTGRESQL)
    parser.add_argument("--store", choices=(BUILTIN, HTTP), default=BUILTIN)
    parser.add_argument(
        "--only", action="append", help="faults with this in their name; may be given again"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--seconds", type=float, default=1_500, help="no new fault after so long")
    parser.add_argument("--logs", type=Path, help="keep the processes' logs in this folder")
    parser.add_argument("--markdown", type=Path, help="write the table there as well")
    return parser.parse_args(arguments)


def _own_namespace(arguments: list[str]) -> None:
    """As root: start again where mounts are ours alone, and vanish with us."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or disk.is_possible() or unshare is None:
        return
    probe = [unshare, "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        own = [unshare, "--mount", sys.executable, "-m", "tests.chaos.run", *arguments]
        os.execve(unshare, own, os.environ | {disk.NAMESPACE: "1"})  # noqa: S606


def main(arguments: list[str]) -> int:
    """Run, print, and return 0 only if every promise held."""
    options = _options(arguments)
    _own_namespace([*arguments, f"--seed={options.seed}"])
    print(f"chaos: {options.leaks} leaks, {options.faults} faults, {options.database}, "
          f"{options.store} store, seed {options.seed}", flush=True)  # fmt: skip
    run = Run(options)
    found, made = run()
    for name in ("lost", "twice", "mails", "wrongly", "audit", "unfinished", "traces", "left"):
        for what in getattr(found, name)[:20]:
            print(f"  {name}: {what}")
    for note in run.notes:
        print(f"  note: {note}")
    print(table.plain(made))
    seconds = time.monotonic() - run.began
    overall = (
        f"{options.database}, {options.store} store, seed {options.seed}, {seconds:.0f} s: "
        f"{len(found.lost)} lost, {len(found.twice)} twice, {len(found.wrongly)} wrongly, "
        f"{len(found.mails)} mails wrong ({found.doubled} came twice under one Message-ID), "
        f"{len(found.audit)} audit problems in {found.events} events, "
        f"{len(found.unfinished)} unfinished, {len(found.traces)} traces, "
        f"{len(found.left)} processes left"
    )
    print(overall)
    if options.markdown is not None:
        options.markdown.write_text(f"{table.markdown(made)}\n\n{overall}.\n")
    return 0 if found.is_good and not run.notes else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
