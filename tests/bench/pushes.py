"""Parse and match a push: a pack of 130 KB, as git makes it, of real source text."""

from __future__ import annotations

import random
import subprocess
import sysconfig
import tempfile
import zlib
from pathlib import Path

from figures import Figure, milliseconds, seconds

from scanner.embedded.git_server import git
from scanner.git.inspect import inspect_pack
from scanner.git.pack import Bounds, PackReader
from scanner.git.sandbox import SandboxInspector
from scanner.matcher.engine import Matcher
from scanner.patterns.loader import load
from scanner.ports import Pack

_SIZE = 130_000  # bytes of pack
_LARGEST = 20_000  # bytes of a file that is changed: the pack grows in small steps


def measure(quick: bool) -> list[Figure]:
    runs = 5 if quick else 200
    rows = []
    for kind, files in (("few commits", 12), ("many commits", 1)):
        with tempfile.TemporaryDirectory() as folder:
            rows += _measure(kind, _push(Path(folder), files), runs)
    return rows


def _measure(kind: str, data: bytes, runs: int) -> list[Figure]:
    ruleset = load()
    matcher = Matcher(ruleset)
    inspection = inspect_pack(data, matcher)
    streams = [zlib.compress(item.data or b"") for item in PackReader(data, Bounds()).objects()]
    in_process = seconds(lambda: inspect_pack(data, matcher), runs)
    inflate = seconds(lambda: [zlib.decompress(stream) for stream in streams], runs)
    parse = seconds(lambda: sum(1 for _ in PackReader(data, Bounds()).objects()), runs)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        child = SandboxInspector(ruleset)
        in_child = seconds(lambda: child.inspect(Pack(file, len(data))), runs)
        child.close()
    size, inflated = (f"{count / 1e3:.0f} KB" for count in (len(data), inspection.bytes))
    child_share, parse_share, zlib_share = (x / in_process for x in (in_child, parse, inflate))
    return [
        Figure(
            f"parse and match {size}, {kind}: {inspection.objects} objects, {inflated} inflated",
            milliseconds(in_process), "1", "≤ 3 ms",
        ),
        Figure("parse alone", milliseconds(parse), f"{parse_share:.2f}"),
        Figure("zlib alone, same contents", milliseconds(inflate), f"{zlib_share:.2f}"),
        Figure("the same in the child process", milliseconds(in_child), f"{child_share:.2f}"),
    ]  # fmt: skip


def _push(folder: Path, files: int) -> bytes:
    """Commits that change so many real source files each, until their pack is as large."""
    source = random.Random(4)
    git("init", "--quiet", str(folder))
    stdlib = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    names = [name for name in stdlib if name.stat().st_size < _LARGEST]
    for name in names:
        (folder / name.name).write_bytes(name.read_bytes())
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "-m", "Base", cwd=folder)
    base = git("rev-parse", "HEAD", cwd=folder)
    while True:
        for name in source.sample(names, files):
            file = folder / name.name
            lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            for number in range(8):
                at = source.randrange(len(lines) + 1)
                lines.insert(at, f"value_{number} = {source.random()}")
            file.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
        git("commit", "--quiet", "--all", "-m", "Change", cwd=folder)
        made = subprocess.run(
            ["git", "pack-objects", "--stdout", "--revs", "-q", "--delta-base-offset"],
            cwd=folder, input=f"HEAD\n^{base}\n".encode(), capture_output=True, check=True,
        ).stdout  # fmt: skip
        if len(made) >= _SIZE:
            return made
