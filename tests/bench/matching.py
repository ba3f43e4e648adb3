"""The matcher over real source text, over dense text, and over next to nothing."""

from __future__ import annotations

import random
import sysconfig
import tempfile
from pathlib import Path

from figures import Figure, milliseconds, seconds

from scanner.matcher.engine import Matcher
from scanner.matcher.reference import spans
from scanner.patterns.generate import generate
from scanner.patterns.loader import load

_TEXT = 32 << 20
_PART = 1 << 20  # of it, for the slow reference


def measure(quick: bool) -> list[Figure]:
    runs = 3 if quick else 15
    ruleset = load()
    matcher = Matcher(ruleset)
    sources = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    text = b"".join(source.read_bytes() for source in sources)[:_TEXT]
    part = text[:_PART]
    whole = len(text) / seconds(lambda: matcher.scan(text), runs)
    some = len(part) / seconds(lambda: matcher.scan(part), runs)
    slow = len(part) / seconds(lambda: [spans(p, part) for p in ruleset.patterns], runs=1)
    token = generate("github-pat", random.Random(1)).reveal()
    dense = b"\n".join([token] * 5_000)
    short = part[:100]
    small = seconds(lambda: matcher.scan(short), runs * 1_000)
    with tempfile.TemporaryDirectory() as folder:
        Matcher(ruleset, cache_dir=Path(folder))
        load_cached = seconds(lambda: Matcher(ruleset, cache_dir=Path(folder)), runs)
    kinds = f"{len(ruleset.patterns)} patterns"
    return [
        Figure(f"{len(text) >> 20} MiB of Python source, {kinds}", f"{whole / 1e9:.2f} GB/s", "1"),
        Figure("1 MiB of it", f"{some / 1e9:.2f} GB/s", f"{some / whole:.2f}"),
        Figure("the reference `re`, 1 MiB", f"{slow / 1e6:.1f} MB/s", f"1 : {some / slow:.0f}"),
        Figure(
            f"{len(dense) / 1e3:.0f} KB of {5_000} tokens",
            milliseconds(seconds(lambda: matcher.scan(dense), runs)),
        ),
        Figure("100 bytes", f"{small * 1e6:.2f} µs"),
        Figure("a matcher from the cache", milliseconds(load_cached)),
    ]
