"""Secrets that nobody set: made once, kept, and readable by their owner only."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scanner.db.seals import Sealer
from scanner.errors import ConfigurationError
from scanner.keyring import prepare_data_dir
from scanner.settings import Settings, load_settings

USES: dict[str, Callable[[Settings], Any]] = {
    "peppers": lambda settings: tuple(settings.pepper_ring),
    "seal_keys": lambda settings: tuple(settings.seal_ring),
    "fingerprint_keys": lambda settings: tuple(settings.fingerprint_ring),
    "api_token": lambda settings: settings.api_bearer,
    "github_webhook_secret": lambda settings: settings.all_hooks,
}


def start(data_dir: Path) -> Settings:
    # Given as overrides, so that the environment of whoever runs the tests does not count.
    return load_settings({"data_dir": data_dir, **dict.fromkeys(USES)})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "srv" / "patrol" / "data"


@pytest.mark.parametrize("name", USES)
def test_made_once_and_kept(data_dir: Path, name: str) -> None:
    first = USES[name](start(data_dir))
    file = data_dir / "keys" / name
    content = file.read_text()
    assert USES[name](start(data_dir)) == first
    assert file.read_text() == content
    assert sorted(data_dir.glob("keys/*")) == [file]  # nothing half-made is left
    assert sorted(data_dir.glob("keys/.*")) == []


def test_each_is_another(data_dir: Path, tmp_path: Path) -> None:
    for folder in (data_dir, tmp_path / "other"):
        for use in USES.values():
            use(start(folder))
    made = [
        (folder / "keys" / name).read_text().strip().removeprefix("k1:")
        for folder in (data_dir, tmp_path / "other")
        for name in USES
    ]
    assert len(set(made)) == len(made)
    assert all(len(value) >= 43 for value in made)  # 256 bits, in hex or base64
    Sealer(start(data_dir).seal_ring)


def test_readable_by_their_owner_only(data_dir: Path) -> None:
    before = os.umask(0)
    try:
        for name, use in USES.items():
            use(start(data_dir))
            assert mode(data_dir / "keys" / name) == 0o600
        for folder in (data_dir / "keys", data_dir, data_dir.parent):
            assert mode(folder) == 0o700
    finally:
        os.umask(before)


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    folder.chmod(0o750)
    prepare_data_dir(folder)
    prepare_data_dir(folder / "new")
    assert (mode(folder), mode(folder / "new")) == (0o750, 0o700)
    assert list(folder.iterdir()) == [folder / "new"]


def test_threads_that_start_at_once_agree(data_dir: Path) -> None:
    gate = threading.Barrier(8)
    seen: list[Any] = []

    def begin() -> None:
        settings = start(data_dir)
        gate.wait(30)
        seen.append(settings.pepper_ring[0].value)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1
    assert [file.name for file in (data_dir / "keys").iterdir()] == ["peppers"]


def test_processes_that_start_at_once_agree(data_dir: Path) -> None:
    program = """
import sys
from scanner.settings import load_settings
settings = load_settings({"data_dir": sys.argv[1], "peppers": None, "api_token": None})
print("ready", flush=True)
input()
print(settings.pepper_ring[0].value.decode(), settings.api_bearer)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(data_dir)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},  # this checkout
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    printed = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(printed) == 1


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"hush"])
def test_a_file_that_was_damaged_is_no_secret(data_dir: Path, name: str, content: bytes) -> None:
    """An empty API token would let everybody in; a new pepper would forget every token."""
    USES[name](start(data_dir))
    file = data_dir / "keys" / name
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        USES[name](start(data_dir))
    said = str(caught.value)
    assert f"PATROL_{name.upper()}" in said
    assert content == b"hush" or str(file) in said
    assert "hush" not in said
    assert file.read_bytes() == content


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for data_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match="PATROL_DATA_DIR") as caught:
            _ = start(data_dir).api_bearer
        assert str(data_dir) in str(caught.value)


def test_a_secret_that_was_set_is_not_made(data_dir: Path) -> None:
    settings = load_settings({"data_dir": data_dir, "api_token": "f3b1c07ad92e4586"})
    assert settings.api_bearer == "f3b1c07ad92e4586"
    assert not data_dir.exists()


@pytest.mark.parametrize("name", ["api", "admin", "service"])
def test_a_bearer_token_rotates_with_two_valid(data_dir: Path, name: str) -> None:
    new, old = (secrets.token_hex(16) for _ in range(2))
    settings = load_settings({"data_dir": data_dir, f"{name}_token": f"{new}, {old}"})
    assert getattr(settings, f"{name}_bearers") == (new, old)
    three = load_settings({"data_dir": data_dir, f"{name}_token": f"{new},{old},{new[::-1]}"})
    with pytest.raises(ConfigurationError, match="may hold two secrets"):
        _ = getattr(three, f"{name}_bearers")
    weak = load_settings({"data_dir": data_dir, f"{name}_token": f"{new},changeme"})
    with pytest.raises(ConfigurationError, match="is an example"):
        _ = getattr(weak, f"{name}_bearers")


def test_one_token_does_not_open_two_doors(data_dir: Path) -> None:
    new, old = (secrets.token_hex(16) for _ in range(2))
    both = load_settings({"data_dir": data_dir, "api_token": f"{new},{old}", "admin_token": old})
    for name in ("api_bearers", "admin_bearers"):
        with pytest.raises(ConfigurationError, match="they open different doors"):
            _ = getattr(both, name)
