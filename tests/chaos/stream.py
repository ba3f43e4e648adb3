"""The pushes: planted tokens in every way that they come, as fast as they are asked for."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from scanner.bootstrap import Services
from scanner.db import watches
from scanner.patterns.generate import generate
from tests.chaos.deliveries import Deliveries
from tests.chaos.issuer import Issuer
from tests.chaos.repositories import Pushed, Repository

_PATTERN = "azure-devops-pat"
_KEPT = 0.1  # of the tokens belong to an organisation that revokes by itself
_DECOYS = 0.1  # as many tokens again are issued and never leak
_LOST = 0.08  # of the webhooks that a later one heals never come
_WATCH_SECONDS = 10
_FIRST_REPOSITORIES = 6
_MOST_REPOSITORIES = 24


@dataclass
class Planted:
    """A token, and what must come of it."""

    secret: str
    token_id: str
    organisation: str
    window: int = -1  # the fault under which it leaked first; -1: it never did

    @property
    def has_leaked(self) -> bool:
        return self.window >= 0


@dataclass
class _Place:
    repository: Repository
    is_watched: bool = False
    owes: bool = False  # a webhook was lost, and none came since


class Stream:
    """Pushes in a thread of its own: as many tokens as `leak` was told, then it waits."""

    def __init__(
        self,
        services: Services,
        issuer: Issuer,
        root: Path,
        deliveries: Deliveries,
        leaks: int,
        rng: random.Random,
    ) -> None:
        self._services, self._issuer = services, issuer
        self._root, self._deliveries = root, deliveries
        self._rng = rng
        self.planted = [self._issue(n) for n in range(leaks + round(leaks * _DECOYS))]
        self._fresh = self.planted[:leaks]
        self._leaked: list[Planted] = []
        self._places = [self._new_place(is_watched=n % 3 == 0) for n in range(_FIRST_REPOSITORIES)]
        self.counts: Counter[str] = Counter()
        self._asked = self._window = 0
        self._pace = 0.0
        self._changed = threading.Condition()
        self._is_over = False
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="stream")
        self._ways: tuple[tuple[Callable[[], None], int], ...] = (
            (self._plainly, 10), (self._again, 4), (self._forked, 2), (self._regretted, 3),
            (self._deleted, 3), (self._tagged, 1), (self._nothing, 2),
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._thread.join()

    def leak(self, number: int, window: int, seconds: float) -> None:
        """Let so many more tokens leak in about so many seconds, under the fault of that number."""
        with self._changed:
            self._asked += number
            self._window = window
            self._pace = seconds / max(1, self._asked)
            self._changed.notify_all()

    @property
    def is_idle(self) -> bool:
        """All that was asked for was pushed."""
        if self.failure is not None:
            raise self.failure
        with self._changed:
            return self._asked == 0 or not self._fresh

    def heal(self) -> None:
        """One more push where a webhook was lost, and nobody else will look."""
        for place in self._places:
            if place.owes and not place.is_watched:
                self._announce(place, place.repository.push("main", {"healed.txt": "healed"}))
                place.owes = False

    # How it goes.

    def _run(self) -> None:
        ways, weights = zip(*self._ways, strict=True)
        try:
            while self._wait():
                self._rng.choices(ways, weights)[0]()
                with self._changed:
                    self._changed.wait_for(lambda: self._is_over, self._pace)
        except BaseException as error:  # noqa: BLE001 (the thread that waits raises it)
            self.failure = error

    def _wait(self) -> bool:
        with self._changed:
            while not self._is_over and (self._asked == 0 or not self._fresh):
                self._changed.wait()
            return not self._is_over

    def _take(self, most: int) -> list[Planted]:
        with self._changed:
            number = min(self._rng.randint(1, most), self._asked, len(self._fresh))
            self._asked -= number
            window = self._window
        taken = [self._fresh.pop() for _ in range(number)]
        for one in taken:
            one.window = window
        self._leaked += taken
        return taken

    def _announce(self, place: _Place, push: Pushed, *, may_be_lost: bool = False) -> None:
        if may_be_lost and self._rng.random() < _LOST:
            place.owes = True
            self.counts["webhooks lost"] += 1
            return
        if push.ref == "refs/heads/main":
            place.owes = False
        self._deliveries.add(push)

    # Ways to leak.

    def _plainly(self) -> None:
        place = self._rng.choice(self._places)
        push = place.repository.push("main", self._files(self._take(3)))
        self._announce(place, push, may_be_lost=True)
        self.counts["pushes to main"] += 1

    def _again(self) -> None:
        if self._leaked:
            place = self._rng.choice(self._places)
            files = self._files(self._rng.sample(self._leaked, min(2, len(self._leaked))))
            self._announce(place, place.repository.push("main", files), may_be_lost=True)
            self.counts["tokens leaked again"] += 1

    def _forked(self) -> None:
        if len(self._places) < _MOST_REPOSITORIES:
            origin = self._rng.choice(self._places)
            place = _Place(self._new_repository(origin.repository))
            self._places.append(place)
            self._announce(place, place.repository.push("main", self._files(self._take(2))))
            self.counts["forks"] += 1

    def _regretted(self) -> None:
        """A token is pushed, and pushed away by force; both webhooks come."""
        place = self._rng.choice(self._places)
        base = place.repository.heads.get("main")
        self._announce(place, place.repository.push("main", self._files(self._take(1))))
        if base is not None:
            after = place.repository.push("main", {"clean.txt": self._name()}, onto=base)
            self._announce(place, after)
            self.counts["forced pushes"] += 1

    def _deleted(self) -> None:
        """A branch with a token comes, and goes."""
        place = self._rng.choice(self._places)
        branch = f"fix-{self._name()}"
        self._announce(place, place.repository.push(branch, self._files(self._take(2))))
        if self._rng.random() < 0.7:
            self._announce(place, place.repository.delete(branch))
            self.counts["branches deleted"] += 1

    def _tagged(self) -> None:
        place = self._rng.choice(self._places)
        name = f"v-{self._name()}"
        push = place.repository.push(name, self._files(self._take(1)), is_tag=True)
        self._announce(place, push)
        self.counts["tags"] += 1

    def _nothing(self) -> None:
        """What looks like a token and was never issued, and what looks like nothing."""
        place = self._rng.choice(self._places)
        stranger = generate(_PATTERN, self._rng).reveal().decode()
        files = {f"{self._name()}.txt": f"token = {stranger}\n", "readme.md": self._name()}
        self._announce(place, place.repository.push("main", files), may_be_lost=True)
        self.counts["pushes without a leak"] += 1

    # What it needs.

    def _files(self, planted: list[Planted]) -> dict[str, str]:
        files = {}
        for one in planted:
            files[f"config/{self._name()}.ini"] = f"[deploy]\nkey = {one.secret}\n"
        return files or {f"{self._name()}.txt": "nothing\n"}

    def _name(self) -> str:
        return f"{self._rng.getrandbits(40):010x}"

    def _new_repository(self, origin: Repository | None = None) -> Repository:
        return Repository(self._root, f"acme/{self._name()}", origin)

    def _new_place(self, *, is_watched: bool) -> _Place:
        place = _Place(self._new_repository(), is_watched)
        if is_watched:
            host, name = self._services.settings.github_url, place.repository.name
            with self._services.database.begin() as connection:
                watches.add_watch(connection, host, name, _WATCH_SECONDS, "chaos")
        return place

    def _issue(self, number: int) -> Planted:
        most, *others = self._issuer.organisations
        chance = self._rng.random()
        organisation = self._rng.choice(others) if others and chance < _KEPT else most
        return Planted(*self._issuer.issue(number, organisation), organisation)
