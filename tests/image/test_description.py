"""The image and the containers are described as they are meant to be, and as Patrol is."""

from __future__ import annotations

import re
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from scanner.cli import cli
from scanner.settings import Settings
from tests.image.description import (
    ROOT,
    command_of,
    compose,
    dockerfile,
    health_of,
    image_health,
    is_sent,
)
from tests.test_docs import settings_rows

OURS = ("migrate", "web", "worker", "beat", "mail")
SERVICES = sorted([*OURS, "redis", "postgres"])
MADE_BY_PATROL = "made once"


def service(name: str) -> Any:
    return compose()["services"][name]


def check_command(words: list[str]) -> None:
    """`patrol ...` as the command line knows it."""
    assert words[0] == "patrol"
    command: click.Command = cli
    rest = words[1:]
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), rest.pop(0))
        assert found is not None, words
        command = found
    command.make_context(words[-1], rest)


# The image.


def test_every_step_is_the_script_that_is_tested() -> None:
    build, final = dockerfile()[1]
    steps = [shlex.split(line) for line in (*build.all("RUN"), *final.all("RUN"))]
    scripts = [[w for w in words if not w.startswith("--mount=")] for words in steps]
    assert [(Path(words[0]).name, *words[1:]) for words in scripts] == [
        ("image.sh", "build", "/app"),
        ("image.sh", "install", "/app"),
        ("image.sh", "system"),
    ]


def test_what_is_copied_is_there_and_is_sent() -> None:
    build, final = dockerfile()[1]
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    copied = []
    for line in build.all("COPY"):
        *sources, _ = shlex.split(line)
        for source in sources:
            files = [name for name in tracked if name == source or name.startswith(f"{source}/")]
            assert files, source
            assert [name for name in files if not is_sent(name)] == []
            copied += files
    assert "scanner/patterns/azure-devops.toml" in copied
    assert final.all("COPY") == ["--from=build /app /app"]


@pytest.mark.parametrize(
    "path",
    [
        ".env", ".git/config", "patrol-compose/secrets/database_url", "patrol-compose/keys/peppers",
        "patrol-data/keys/seal_keys", ".venv/bin/python", "tests/conftest.py", "notes.txt",
        "scanner/__pycache__/cli.cpython-311.pyc", "docs/settings.md",
    ],
)  # fmt: skip
def test_nothing_else_is_sent(path: str) -> None:
    assert not is_sent(path)


def test_the_base_is_one_pinned_tag_and_can_be_a_digest() -> None:
    arguments, stages = dockerfile()
    assert {stage.base for stage in stages} == {arguments["PYTHON_IMAGE"]}
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", arguments["PYTHON_IMAGE"])
    page = (ROOT / "docs" / "containers.md").read_text("utf-8")
    assert "--build-arg PYTHON_IMAGE=python@sha256:" in page


def test_the_image_runs_as_nobody_and_holds_no_secret() -> None:
    build, final = dockerfile()[1]
    assert final.one("USER") == "10001:10001"
    assert "ADD" not in {name for stage in (build, final) for name, _ in stage.steps}
    known = {f"PATROL_{name.upper()}" for name in Settings.model_fields}
    ours = {name for name in final.environment if name.startswith("PATROL_")}
    assert ours == {"PATROL_DATA_DIR"} <= known
    assert build.environment == {}


def test_the_image_is_watched_and_stopped_in_order() -> None:
    final = dockerfile()[1][-1]
    check_command(image_health())
    assert final.one("STOPSIGNAL") == "SIGTERM"
    assert image_health()[-1] == final.one("CMD").split('"')[-2] == "worker"


# The containers.


def test_all_of_patrol_is_there() -> None:
    assert sorted(compose()["services"]) == SERVICES


@pytest.mark.parametrize("name", OURS)
def test_commands_exist(name: str) -> None:
    check_command(command_of(name))
    if name == "migrate":
        assert service(name)["healthcheck"] == {"disable": True}
    else:
        check_command(health_of(name))
        assert health_of(name)[-1] == command_of(name)[1] == name


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened(name: str) -> None:
    told = service(name)
    assert told["read_only"] is True
    assert told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert told["user"].startswith("${RUN_AS:?")
    assert "privileged" not in told
    assert "cap_add" not in told
    assert told["restart"] == ("no" if name == "migrate" else "unless-stopped")
    assert {"mem_limit", "cpus", "pids_limit"} <= set(told)
    assert any(place.startswith("/tmp:") for place in told["tmpfs"])  # noqa: S108
    assert not re.search(r":latest$", told["image"])
    if name not in OURS:
        assert re.search(r":\d[\w.-]+$", told["image"]), "an image of others is pinned"


@pytest.mark.parametrize("name", OURS)
def test_settings_are_known_and_secrets_are_files(name: str) -> None:
    secret = {
        field for field, told in Settings.model_fields.items() if "Secret" in str(told.annotation)
    }
    for variable, value in (service(name).get("environment") or {}).items():
        setting = variable.removeprefix("PATROL_").removesuffix("_FILE").lower()
        assert setting in Settings.model_fields, variable
        assert (setting in secret) == variable.endswith("_FILE"), variable
        if setting in secret:
            assert value == f"/run/secrets/{setting}"
            assert setting in service(name)["secrets"]


def test_no_password_stands_in_the_file() -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8")
    assert re.findall(r"[a-z+]+://[^\s:/@]+:[^\s@]+@", text) == []
    for name in SERVICES:
        for variable in service(name).get("environment") or {}:
            if "PASSWORD" in variable:
                assert variable.endswith("_FILE")


def test_what_patrol_makes_once_is_made_once_for_all() -> None:
    """A container that made keys of its own would know no token; the mail catcher needs none."""
    assert [name for name, default in settings_rows().items() if default == MADE_BY_PATROL] != []
    with_keys = {
        name
        for name in OURS
        if "./patrol-compose/keys:/data/keys" in service(name).get("volumes", [])
    }
    assert with_keys == {"migrate", "web", "worker", "beat"}


def test_processes_see_only_what_they_need() -> None:
    networks = {name: set(service(name)["networks"]) for name in SERVICES}
    inside = {name for name, told in compose()["networks"].items() if told.get("internal")}
    assert inside == {"database", "broker"}
    assert {name for name in SERVICES if networks[name] <= inside} == {
        "beat", "migrate", "postgres", "redis",
    }  # fmt: skip
    assert networks["postgres"] == {"database"}
    assert networks["redis"] == {"broker"}
    assert {name for name in SERVICES if "database" in networks[name]} == {
        "migrate", "web", "worker", "beat", "postgres",
    }  # fmt: skip
    published = {name: service(name)["ports"] for name in SERVICES if "ports" in service(name)}
    assert published == {
        "web": ["${WEB_ADDRESS:-127.0.0.1:8080}:8080"], "mail": ["127.0.0.1:8026:8026"]
    }  # fmt: skip


def test_nothing_starts_before_what_it_needs() -> None:
    for name in ("web", "worker", "beat"):
        assert service(name)["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "postgres": {"condition": "service_healthy"},
            "redis": {"condition": "service_healthy"},
        }
    assert service("migrate")["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert service("mail")["profiles"] == ["demo"]
    assert [name for name in SERVICES if "profiles" in service(name)] == ["mail"]


def test_the_web_process_is_not_ready_for_lack_of_room_alone() -> None:
    (size,) = re.findall(r"/data:size=(\d+)m", " ".join(service("web")["tmpfs"]))
    assert (int(size) << 20) > 1.5 * Settings.model_fields["min_free_bytes"].default


def test_packs_find_room() -> None:
    (size,) = re.findall(r"tmp:size=(\d+)m", " ".join(service("worker")["tmpfs"]))
    at_once = 2  # the worker's default
    assert (int(size) << 20) > at_once * Settings.model_fields["fetch_max_bytes"].default


# What compose.yaml reads.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose") / "made"
    init(folder)
    return folder


def init(folder: Path) -> None:
    subprocess.run(
        [ROOT / "scripts" / "compose_init.sh", folder], capture_output=True, check=True, timeout=30
    )


def test_every_file_that_is_mounted_is_made(made: Path) -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8")
    named = set(re.findall(r"\./patrol-compose/([\w./]+)", text))
    assert named >= {"patrol.env", "keys", "patterns", "secrets/database_url"}
    assert [name for name in named if not (made / name).exists()] == []
    for name in re.findall(r"- \./(scripts/[\w./]+):", text):
        assert (ROOT / name).stat().st_mode & stat.S_IXOTH


def test_only_their_owner_reads_them(made: Path) -> None:
    for place in (made, *made.rglob("*")):
        assert place.stat().st_mode & 0o077 == 0, place


def test_passwords_are_strong_and_never_the_same(made: Path) -> None:
    secrets = {file.name: file.read_text().strip() for file in (made / "secrets").iterdir()}
    passwords = [secrets[name] for name in secrets if name.endswith("password")]
    assert len(set(passwords)) == len(passwords) == 3
    assert all(re.fullmatch("[0-9a-f]{64}", password) for password in passwords)
    assert secrets["database_password"] in secrets["database_url"]
    assert secrets["redis_password"] in secrets["broker_url"]
    assert secrets["redis_password"] not in secrets["redis.conf"]


def test_a_second_call_changes_nothing(made: Path) -> None:
    (made / "secrets" / "smtp_url").write_text("smtps://relay.example")
    before = {file: file.read_bytes() for file in made.rglob("*") if file.is_file()}
    init(made)
    assert {file: file.read_bytes() for file in made.rglob("*") if file.is_file()} == before


def test_every_setting_that_is_suggested_exists(made: Path) -> None:
    named = re.findall(r"^#PATROL_(\w+)=", (made / "patrol.env").read_text(), re.MULTILINE)
    assert len(named) >= 5
    assert {name.lower() for name in named} <= set(Settings.model_fields)
