"""The image's own steps, run in a bare directory; and what they make, walked through with real
PostgreSQL and Redis: a push, a revocation, a mail. docs/containers.md says what this proves."""

from __future__ import annotations

import hashlib
import hmac
import importlib.metadata
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from packaging.requirements import Requirement

from scanner.embedded.git_server import GitServer
from tests.image.conftest import USER, Containers, Image
from tests.image.description import ROOT, compose
from tests.servers.postgres import PostgresServer
from tests.servers.present import needs
from tests.servers.process import Server

_PATIENCE = 60.0


def until(what: str, look: Callable[[], Any]) -> Any:
    """Return the first true answer of `look`. Other processes write what it reads: it must poll."""
    deadline = time.monotonic() + _PATIENCE
    while not (answer := look()):
        assert time.monotonic() < deadline, f"waited {_PATIENCE:g} s in vain for {what}"
        time.sleep(0.05)
    return answer


# What was made.


def distributions(image: Image) -> dict[str, importlib.metadata.Distribution]:
    (packages,) = image.app.glob("lib/python3.*/site-packages")
    found = importlib.metadata.distributions(path=[str(packages)])
    return {normal(each.name): each for each in found}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_it_holds_what_patrol_needs_and_nothing_else(image: Image) -> None:
    installed = distributions(image)
    needed: set[tuple[str, str]] = set()
    waiting = [("pat-patrol", "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in needed:
            continue
        needed.add((name, extra))
        for line in installed[name].requires or []:
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"extra": extra}):
                waiting += [(normal(requirement.name), each) for each in requirement.extras]
                waiting.append((normal(requirement.name), ""))
    # The image's Python may be older than ours: Redis's client needs a backport before 3.11.3.
    assert set(installed) - {"async-timeout"} == {name for name, _ in needed} - {"async-timeout"}


def test_every_package_is_the_pinned_one(image: Image) -> None:
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    pins = {normal(n): v for n, v in re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE)}
    versions = {name: each.version for name, each in distributions(image).items()}
    del versions["pat-patrol"]
    assert {name: pins[name] for name in versions} == versions


def test_patrol_is_a_wheel_that_says_not_where_it_was_built(image: Image) -> None:
    (packages,) = image.app.glob("lib/python3.*/site-packages")
    assert (packages / "scanner" / "cli.py").is_file()
    assert list(packages.glob("*.pth")) == []
    files = [file.name for file in distributions(image)["pat-patrol"].files or []]
    assert "py.typed" in files
    assert not (packages / "tests").exists()
    assert list(packages.glob("pat_patrol-*/direct_url.json")) == []


def test_all_of_it_is_compiled_for_good(image: Image) -> None:
    (packages,) = image.app.glob("lib/python3.*/site-packages")
    for source in (*packages.glob("scanner/**/*.py"), *packages.glob("notifier/**/*.py")):
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc")
        assert compiled.read_bytes()[4] == 1, "by hash, and nobody looks at the source's time"


def test_no_pip_and_no_compiler_is_left(image: Image) -> None:
    names = {file.name for file in (image.app / "bin").iterdir()}
    assert {"python", "patrol"} <= names
    assert [name for name in names if name.startswith(("pip", "hatch", "wheel"))] == []


@pytest.mark.skipif(USER is None, reason="only root can make what its user cannot change back")
def test_its_user_can_change_nothing(image: Image) -> None:
    writable = subprocess.run(
        ["find", image.folder, "-writable", "-not", "-type", "l"],
        user=USER, group=USER, extra_groups=[], capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert writable == ""


def test_a_second_build_does_not_mix_with_the_first(image: Image) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "image.sh", "build", image.app],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert "holds an environment already" in done.stderr


@pytest.mark.parametrize("words", [(), ("build",), ("system", "x"), ("all", "x")])
def test_a_wrong_word_is_one_sentence(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "image.sh", *words],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "image: usage: scripts/image.sh build DEST | install DEST | system\n"


# All of it at work.


class ComposeRedis(Server):
    """Redis with the very configuration that compose_init.sh wrote, at a port of ours."""

    name = "redis-server"

    def __init__(self, program: Path, configuration: Path) -> None:
        super().__init__(USER)
        self._words = [str(program), str(configuration)]

    def command(self) -> list[str]:
        told = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder}
        return [*self._words, *(word for k, v in told.items() for word in (f"--{k}", str(v)))]

    def is_ready(self) -> bool:
        return "PONG" in self.ask("PING")

    def ask(self, *words: str) -> str:
        """What redis-cli prints for somebody who does not sign in."""
        return subprocess.run(
            [Path(self._words[0]).with_name("redis-cli"), "-p", str(self.port), *words],
            capture_output=True, text=True, check=False, timeout=10,
        ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def git_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    with GitServer(tmp_path_factory.mktemp("git") / "served") as running:
        yield running


@pytest.fixture(scope="module")
def containers(image: Image, git_host: GitServer) -> Iterator[Containers]:
    made = Containers(
        image, {"PATROL_GITHUB_URL": git_host.url, "PATROL_ALLOW_HOSTS": git_host.address}
    )
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def redis(containers: Containers) -> Iterator[ComposeRedis]:
    with ComposeRedis(needs("redis-server"), containers.secret("redis.conf")) as server:
        containers.rewrite("broker_url", "@redis:6379", f"@127.0.0.1:{server.port}")
        yield server


@pytest.fixture(scope="module")
def postgres(containers: Containers) -> Iterator[PostgresServer]:
    with PostgresServer(needs("postgresql"), durable=False) as server:
        server.execute("DROP ROLE patrol")
        prepared = subprocess.run(
            [ROOT / "scripts" / "compose_database.sh"],
            env={
                "PATH": f"{needs('postgresql')}:/usr/bin:/bin",
                "PGHOST": "127.0.0.1",
                "PGPORT": str(server.port),
                "DATABASE_PASSWORD_FILE": str(containers.secret("database_password")),
            },
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert prepared.returncode == 0, prepared.stderr
        containers.rewrite("database_url", "@postgres/", f"@127.0.0.1:{server.port}/")
        yield server


@pytest.fixture(scope="module")
def running(
    containers: Containers, redis: ComposeRedis, postgres: PostgresServer
) -> Iterator[Containers]:
    smtp = containers.ports["smtp_port"]
    containers.rewrite("smtp_url", "mail:8025", f"127.0.0.1:{smtp}")
    done = containers.run("migrate")
    assert (done.returncode, done.stderr) == (0, "")
    before = containers.image.snapshot()
    for service in ("mail", "web", "worker", "beat"):
        containers.start(service)
    until("all to be well", lambda: all_are_well(containers))
    yield containers
    assert containers.image.snapshot() == before


def all_are_well(containers: Containers) -> bool:
    return all(
        containers.health(service).returncode == 0 for service in ("mail", "web", "worker", "beat")
    )


def test_the_role_is_no_superuser(postgres: PostgresServer, running: Containers) -> None:
    assert postgres.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'patrol'") == [(False,)]
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'patrol'"
    assert postgres.execute(owner) == [("patrol",)]
    password = running.secret("database_password").read_text().strip()
    (stored,) = postgres.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'patrol'")
    assert stored[0].startswith("SCRAM-SHA-256$")
    assert password not in stored[0]


def test_redis_lets_nobody_do_anything_without_the_password(redis: ComposeRedis) -> None:
    health = compose()["services"]["redis"]["healthcheck"]["test"]
    assert health == ["CMD-SHELL", "redis-cli ping | grep -q PONG"]
    for words in (("GET", "a"), ("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("INFO",)):
        assert "NOPERM" in redis.ask(*words), words


def test_a_push_is_answered_from_the_image(running: Containers, git_host: GitServer,
    make_repository: Any, tmp_path: Path) -> None:  # fmt: skip
    issued = running.run(
        "web", "patrol", "tokens", "issue", "--organisation=Contoso", "--owner=Ada",
        "--email=ada@contoso.example", "--name=ci-deploy",
    )  # fmt: skip
    assert issued.returncode == 0, issued.stderr
    token = issued.stdout.strip()

    def status() -> int:
        bearer = {"Authorization": f"Bearer {token}"}
        return httpx2.get(
            f"{running.url}/api/v1/whoami", headers=bearer, trust_env=False, timeout=30
        ).status_code

    assert status() == 200
    repository = make_repository(git_host, "demo/billing", tmp_path)
    commit = repository.commit({"deploy.ini": f"token = {token}\n"})
    repository.push()
    body = json.dumps(
        {"ref": "refs/heads/main", "before": "0" * 40, "after": commit, "forced": False,
         "repository": {"full_name": "demo/billing"}}
    ).encode()  # fmt: skip
    key = (running.made / "keys" / "github_webhook_secret").read_text().strip().encode()
    signature = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
    answer = httpx2.post(
        f"{running.url}/webhooks/github", content=body, trust_env=False, timeout=30,
        headers={"Content-Type": "application/json", "X-Hub-Signature-256": signature},
    )  # fmt: skip
    assert answer.status_code == 202
    until("the revocation", lambda: status() == 401)
    page = f"http://127.0.0.1:{running.ports['mail_port']}/"
    until("the mail", lambda: "ci-deploy" in httpx2.get(page, trust_env=False).text)
    (leak,) = json.loads(running.run("web", "patrol", "leaks", "list", "--format=json").stdout)
    assert leak["phase"] == "revoked"
    until(
        "the seals",
        lambda: ", 0 not sealed yet." in running.run("web", "patrol", "audit", "verify").stdout,
    )
    doctor = running.run("worker", "patrol", "doctor")
    assert (doctor.returncode, doctor.stderr) == (0, ""), doctor.stdout
    places = [*running.folder.rglob("*.log"), *running.folder.glob("*-data/**/*")]
    assert [place for place in places if place.is_file() and token.encode() in place.read_bytes()
            and "mail-data" not in str(place)] == []  # fmt: skip


def test_each_is_missed_when_it_is_gone(running: Containers) -> None:
    """The last test: what is stopped stays so. Each stops by itself when an engine says so."""
    for service in ("web", "mail"):
        # uvicorn stops in order, and then ends by the signal that asked it to.
        assert running.stop(service) in (0, -signal.SIGTERM), running.log(service)
        done = running.health(service)
        assert (done.returncode, done.stdout) == (1, "")
        assert "refused" in done.stderr
    for service in ("beat", "worker"):
        assert running.stop(service) == 0, running.log(service)
        done = running.health(service)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{service} " in done.stderr
        assert "has ended" in done.stderr
