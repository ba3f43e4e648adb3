"""The compiled database on disk: used when it is ours and whole, compiled again otherwise."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import pytest

from scanner.matcher.cache import read
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Pattern, Ruleset

RULES = Ruleset((Pattern("p", "test", "p", "ab{3}", "a-z", 4, 4),))
OTHER = Ruleset((Pattern("p", "test", "p", "cd{3}", "a-z", 4, 4),))


def works(folder: Path, rules: Ruleset = RULES, data: bytes = b" abbb ") -> bool:
    return [(c.start, c.end) for c in Matcher(rules, folder).scan(data)] == [(1, 5)]


def only(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_it_is_written_for_us_alone_and_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "cache"
    assert works(folder)
    file = only(folder)
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.stat().st_ino
    assert works(folder)
    assert only(folder).stat().st_ino == before  # not written again: it was used


def test_the_cache_is_what_is_scanned_with(tmp_path: Path) -> None:
    # Another ruleset's dump under this name, with its right hash, is believed: so it is read.
    works(tmp_path / "a")
    works(tmp_path / "b", OTHER, b" cddd ")
    only(tmp_path / "a").write_bytes(only(tmp_path / "b").read_bytes())
    assert not works(tmp_path / "a")


def test_a_damaged_dump_is_compiled_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    works(tmp_path)
    file = only(tmp_path)
    whole = file.read_bytes()
    for content in (b"", whole[:-1], whole[:-1] + bytes((whole[-1] ^ 1,)), whole[:32]):
        file.write_bytes(content)
        assert works(tmp_path)
        assert only(tmp_path).read_bytes()[:32] == hashlib.sha256(file.read_bytes()[32:]).digest()
    assert "damaged" in caplog.text


def test_a_dump_that_is_no_database_is_compiled_again(tmp_path: Path) -> None:
    works(tmp_path)
    junk = b"not a database"
    only(tmp_path).write_bytes(hashlib.sha256(junk).digest() + junk)
    assert works(tmp_path)


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_others_can_write_is_not_used(
    tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    works(tmp_path)
    only(tmp_path).chmod(mode)
    assert works(tmp_path)
    assert "not ours alone" in caplog.text
    assert only(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_file_of_another_user_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    works(tmp_path)
    assert read(only(tmp_path), os.geteuid()) is not None
    assert read(only(tmp_path), os.geteuid() + 1) is None
    assert "not ours alone" in caplog.text


def test_a_link_or_a_folder_in_its_place_is_not_followed(tmp_path: Path) -> None:
    works(tmp_path)
    file = only(tmp_path)
    target = tmp_path / "elsewhere"
    file.rename(target)
    file.symlink_to(target)
    before = target.read_bytes()
    assert works(tmp_path)
    assert not file.is_symlink()
    assert target.read_bytes() == before
    file.unlink()
    file.mkdir()
    assert works(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([file, target])  # nothing temporary is left


def test_no_folder_only_costs_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with caplog.at_level(logging.INFO):
        assert works(blocked / "cache")
    assert "not cached" in caplog.text


def test_another_ruleset_has_another_name(tmp_path: Path) -> None:
    works(tmp_path)
    works(tmp_path, OTHER, b" cddd ")
    assert len(list(tmp_path.iterdir())) == 2
