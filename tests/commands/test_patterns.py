"""patrol patterns: what is listed, and what becomes of each pattern's examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.commands.conftest import Shell


def test_the_list_tells_the_format(bare: Shell) -> None:
    rows = {row["id"]: row for row in bare("patterns", "list", "--format=json").json()}
    pat = rows["github-pat"]
    assert (pat["issuer"], pat["checksum"], pat["mode"]) == ("github", "crc32-base62-6", "score")
    assert (pat["width"], pat["own"], pat["issuable"]) == ("40", False, True)
    assert rows["azure-devops-pat"]["width"] == "84-88"
    assert (rows["xai-key"]["checksum"], rows["xai-key"]["mode"]) == (None, None)


def test_a_file_is_tested_alone(
    bare: Shell, tmp_path: Path, own_pattern: Callable[..., Path]
) -> None:
    file = own_pattern(tmp_path / "own.toml")
    done = bare("patterns", "test", file)
    assert done.code == 0
    assert "acme-token" in done.out
    assert "github-pat" not in done.out
    assert done.out.splitlines()[-1] == "1 patterns are right."


def test_what_is_wrong_is_told_for_each_pattern(
    bare: Shell, tmp_path: Path, own_pattern: Callable[..., Path]
) -> None:
    file = own_pattern(tmp_path / "own.toml")
    text = file.read_text()
    assert "generate = " in text
    lines = ["generate = '{hex:99}'" if "generate = " in x else x for x in text.splitlines()]
    file.write_text("\n".join(lines))
    done = bare("patterns", "test", file)
    assert done.code == 2
    assert "a generated token is not found as it is" in " ".join(done.out.split())
    assert done.err.splitlines()[-1].endswith("1 of 1 patterns are wrong: acme-token.")
