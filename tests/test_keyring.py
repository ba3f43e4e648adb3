"""Rings that turn while they are used."""

from __future__ import annotations

import os
import secrets
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from scanner.errors import ConfigurationError
from scanner.keyring import Key, Ring

SETTING = "PATROL_PEPPERS"
GOOD = secrets.token_hex(16)


@pytest.fixture
def ring(tmp_path: Path) -> Callable[[], Ring]:
    """What another process would have."""
    return lambda: Ring(SETTING, None, tmp_path / "keys" / "peppers", lambda: secrets.token_hex(32))


def ids(ring: Ring) -> list[str]:
    return [key.id for key in ring]


def test_a_new_key_is_seen_by_every_process_at_once(ring: Callable[[], Ring]) -> None:
    one, other = ring(), ring()
    first = one[0]
    assert tuple(other) == (first,)
    assert one.add("2026-11-24")
    assert ids(other) == ["2026-11-24", "k1"]
    assert tuple(other) == tuple(one)
    assert other.find("k1") == first
    assert other.find("k9") is None
    assert not other.add("2026-11-24")
    assert len(one) == 2


def test_the_newest_key_is_never_destroyed(ring: Callable[[], Ring]) -> None:
    one = ring()
    one.add("k2")
    one.remove(["k1", "k2", "k9"])
    assert ids(ring()) == ["k2"]


def test_the_file_stays_its_owners(ring: Callable[[], Ring]) -> None:
    one = ring()
    one.add("k2")
    for file in one.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0 or file.read_bytes() == b""
    assert stat.S_IMODE(one.path.stat().st_mode) == 0o600


def test_turned_by_many_at_once_no_key_is_lost(ring: Callable[[], Ring]) -> None:
    _ = ring()[0]
    gate = threading.Barrier(8)

    def turn(number: int) -> None:
        mine = ring()
        gate.wait(30)
        for round_ in range(5):
            assert mine.add(f"t{number}-{round_}")
            assert mine[0].id  # readable all the time

    threads = [threading.Thread(target=turn, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids(ring()))) == 41
    assert len({key.value for key in ring()}) == 41


def test_a_ring_from_a_setting_is_changed_there(tmp_path: Path) -> None:
    given = Ring(SETTING, f"k2:{GOOD},k1:{GOOD[::-1]}", tmp_path / "none", lambda: "")
    assert tuple(given) == (Key("k2", GOOD.encode()), Key("k1", GOOD[::-1].encode()))
    assert given[1:] == (Key("k1", GOOD[::-1].encode()),)
    for change in (lambda: given.add("k3"), lambda: given.remove(["k1"])):
        with pytest.raises(ConfigurationError, match=f"{SETTING} is set from outside"):
            change()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key_id", ["a>b", "a b", "x" * 33, "ä", "a/b"])
def test_an_id_that_cannot_be_told_apart_is_refused(tmp_path: Path, key_id: str) -> None:
    with pytest.raises(ConfigurationError, match="a key's id is") as caught:
        Ring(SETTING, f"{key_id}:{GOOD}", tmp_path / "none", lambda: "")
    assert GOOD not in str(caught.value)


def test_a_file_that_vanishes_while_in_use_is_one_sentence(ring: Callable[[], Ring]) -> None:
    one = ring()
    _ = one[0]
    one.path.write_text("")
    with pytest.raises(ConfigurationError, match="is empty; restore it from a back-up"):
        _ = one[0]


def test_a_file_that_is_gone_while_in_use_is_not_made_anew(ring: Callable[[], Ring]) -> None:
    """As while its folder is mounted again: with a new key every token would be unknown."""
    one = ring()
    first = one[0]
    away = one.path.rename(one.path.with_name("away"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        _ = one[0]
    assert not one.path.exists()
    away.rename(one.path)
    assert one[0] == first


def test_another_key_under_a_known_id_is_refused(ring: Callable[[], Ring]) -> None:
    one = ring()
    _ = one[0]
    one.path.write_text(f"k1:{GOOD}\n")
    with pytest.raises(ConfigurationError, match="another key under a known id") as caught:
        _ = one[0]
    assert GOOD not in str(caught.value)


def test_what_a_killed_change_left_is_removed(ring: Callable[[], Ring]) -> None:
    """It holds whole keys, which must not outlive their destruction."""
    one = ring()
    _ = one[0]
    left = one.path.with_name(f".{one.path.name}.0123abcd")
    left.write_text(f"k0:{GOOD},k1:{GOOD}\n")
    assert one.add("k2")
    assert not left.exists()
    assert one.path.parent.joinpath(f".{one.path.name}.lock").exists()


def test_a_new_key_survives_a_power_cut(
    ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only what is in the file, but its name: the folder is synced after it."""
    one = ring()
    are_folders: list[bool] = []
    really = os.fsync

    def watched(descriptor: int) -> None:
        are_folders.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    _ = one[0]
    assert are_folders == [False, True]
    assert one.add("k2")
    assert are_folders == [False, True] * 2
