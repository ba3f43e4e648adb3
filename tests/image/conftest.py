"""What worker.Dockerfile makes, made here by its own steps; and containers without an engine: the
commands, settings, secrets and health checks of compose.yaml, as another user who can write nothing
but its data and its temporary folder."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.image.description import (
    ROOT,
    Stage,
    command_of,
    compose,
    dockerfile,
    health_of,
    is_sent,
)
from tests.servers.process import folder_for, free_port

USER = 10_001 if os.geteuid() == 0 else None  # None: we ourselves
AS_USER: dict[str, Any] = {} if USER is None else {"user": USER, "group": USER, "extra_groups": []}
_FROM_THE_MACHINE = re.compile(r"PIP_\w+|\w+_PROXY|\w+_proxy|SSL_CERT_\w+|PATH")


def a_python() -> str:
    """A Python that the containers' user can run: root's own may stand in root's home."""
    folders = [*os.get_exec_path(), "/usr/local/bin", "/usr/bin"]
    for name in ("python3.11", "python3.12", "python3.13", "python3"):
        for folder in folders:
            done = subprocess.run(
                ["/bin/sh", "-c", f"exec {folder}/{name} -I -c "
                 "'import sys, venv; sys.exit(sys.version_info < (3, 11))'"],
                cwd="/", capture_output=True, check=False, timeout=30, **AS_USER,
            )  # fmt: skip
            if done.returncode == 0:
                return f"{folder}/{name}"
    pytest.fail(f"no Python 3.11 or newer that user {USER} can run")


class Image:
    """A bare directory, filled by the Dockerfile's first stage; `app` stands for /app."""

    def __init__(self) -> None:
        self.folder = folder_for(USER, "image")
        os.chown(self.folder, os.geteuid(), os.getegid())
        self.folder.chmod(0o755)
        self.app = self.folder / "app"

    def build(self) -> None:
        """Do what an engine does with the stage, step by step."""
        stage, final = dockerfile()[1]
        work = self.folder / "build"
        work.mkdir()
        for name, text in stage.steps:
            if name == "COPY":
                self._copy(shlex.split(text), work)
            elif name == "RUN":
                self._run([word.replace("/app", str(self.app)) for word in shlex.split(text)], work)
            else:
                assert name == "WORKDIR"
        shutil.rmtree(work)  # the last stage takes /app alone
        self._final: Stage = final

    def _copy(self, words: list[str], work: Path) -> None:
        *sources, target = words
        for source in sources:
            place = ROOT / source
            for file in [place] if place.is_file() else sorted(place.rglob("*")):
                name = str(file.relative_to(ROOT))
                if file.is_file() and is_sent(name):
                    into = work / target
                    into /= file.relative_to(place) if place.is_dir() else file.name
                    into.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, into)

    def _run(self, words: list[str], work: Path) -> None:
        machine = {k: v for k, v in os.environ.items() if _FROM_THE_MACHINE.fullmatch(k)}
        # Packages that `make` has fetched are not fetched again.
        machine |= {
            "PYTHON": a_python(),
            "PIP_NO_CACHE_DIR": "0",
            "HOME": os.environ.get("HOME", str(self.folder)),
        }
        done = subprocess.run(
            words, cwd=work, env=machine, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def environment(self, data: Path) -> dict[str, str]:
        """The image's ENV, with /app and /data as they are called here."""
        told = self._final.environment
        path = told.pop("PATH").replace("/app", str(self.app)).replace("$PATH", "/usr/bin:/bin")
        return {"PATH": path, **{k: v.replace("/data", str(data)) for k, v in told.items()}}

    def snapshot(self) -> dict[str, tuple[int, int, int]]:
        """All files: size, time, mode."""
        found = {}
        for file in self.app.rglob("*"):
            stat = file.lstat()
            found[str(file)] = (stat.st_size, stat.st_mtime_ns, stat.st_mode)
        return found

    def close(self) -> None:
        subprocess.run(["chmod", "-R", "u+w", self.folder], check=False)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    made = Image()
    try:
        made.build()
        if USER is None:  # we are the owner: only the mode can stop us
            subprocess.run(["chmod", "-R", "a-w", made.app], check=True)
        yield made
    finally:
        made.close()


class Containers:
    """The services of compose.yaml as processes of one machine: all ports are on loopback."""

    def __init__(self, image: Image, settings: dict[str, str]) -> None:
        self.image = image
        self.folder = folder_for(USER, "containers")
        self.made = self.folder / "patrol-compose"
        subprocess.run(
            [ROOT / "scripts" / "compose_init.sh", self.made],
            env={"PATH": "/usr/bin:/bin", "RUN_AS": f"{USER}:{USER}"},
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
        if USER is not None:
            os.chown(self.folder, USER, USER)
        self.ports = {name: free_port() for name in ("port", "smtp_port", "mail_port")}
        self._settings = {
            **settings,
            **{f"PATROL_{name.upper()}": str(port) for name, port in self.ports.items()},
        }
        self.url = f"http://127.0.0.1:{self.ports['port']}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def secret(self, name: str) -> Path:
        return self.made / "secrets" / name

    def rewrite(self, name: str, old: str, new: str) -> None:
        """Let a secret's address name this machine instead of a container."""
        file = self.secret(name)
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def environment(self, service: str) -> dict[str, str]:
        """The image's, the service's and our settings; nothing of the tests' own."""
        told = compose()["services"][service]
        data = self.folder / f"{service}-data"
        if not data.exists():
            self._own(data)
            for volume in told.get("volumes", []):
                source, target = volume.split(":")[:2]
                if target.startswith("/data/"):
                    (data / Path(target).name).symlink_to(self.made / Path(source).name)
            self._own(self.folder / f"{service}-tmp")
        own = {
            name: str(value).replace("/run/secrets", str(self.made / "secrets"))
            for name, value in (told.get("environment") or {}).items()
        }
        return {
            **self.image.environment(data),
            "TMPDIR": str(self.folder / f"{service}-tmp"),
            **self._settings,
            **own,
        }

    def _own(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        if USER is not None:
            os.chown(folder, USER, USER)

    def run(self, service: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the service's container, or the service's own until it ends."""
        return subprocess.run(
            words or command_of(service), env=self.environment(service), cwd=self.folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120,
            **AS_USER,
        )  # fmt: skip

    def start(self, service: str) -> None:
        with (self.folder / f"{service}.log").open("ab") as log:
            self._running[service] = subprocess.Popen(
                command_of(service),
                # So that nothing outlives the tests.
                env=self.environment(service) | {"PATROL_SUPERVISED": str(os.getpid())},
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **AS_USER,
            )  # fmt: skip

    def health(self, service: str) -> subprocess.CompletedProcess[str]:
        return self.run(service, *health_of(service))

    def stop(self, service: str) -> int:
        """Stop it as an engine does; returns its exit code."""
        process = self._running.pop(service)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(60)
        finally:
            self._end(process)

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text("utf-8", "replace")

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in self._running.values():
            self._end(process)
        shutil.rmtree(self.folder)
