"""The matcher over real source text, over dense text, and over next to nothing."""

from __future__ import annotations

import base64
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

from figures import Figure, milliseconds, seconds

from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Pattern, Ruleset
from scanner.matcher.reference import spans
from scanner.patterns.generate import generate
from scanner.patterns.loader import load

_TEXT = 64 << 20
_PART = 1 << 20  # of it, for the slow reference
_TEN = (
    "github-pat", "github-fine-grained-pat", "npm-access-token", "pypi-token", "gitlab-pat",
    "anthropic-key", "openai-key", "google-api-key", "stripe-secret-key", "azure-devops-pat",
)  # fmt: skip


def measure(quick: bool) -> list[Figure]:
    runs = 3 if quick else 9
    ruleset = load()
    every = {pattern.id: pattern for pattern in ruleset.patterns}
    text = _source()
    part = text[:_PART]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        build = seconds(lambda: _fresh(cache), 1)
        matcher = Matcher(ruleset, cache)
        cached = seconds(lambda: Matcher(ruleset, cache), runs)
    ten = Matcher(Ruleset(tuple(every[name] for name in _TEN)))
    fast = len(text) / seconds(lambda: ten.scan(text), runs)
    whole = len(text) / seconds(lambda: matcher.scan(text), runs)
    slow = len(part) / seconds(lambda: [spans(p, part) for p in ruleset.patterns], 1)
    kinds = len(ruleset.patterns)
    rows = [
        Figure(f"{_TEXT >> 20} MiB of Python source, 10 patterns", _rate(fast), "1", "≥ 2.0 GB/s"),
        Figure(f"the same, all {kinds}", _rate(whole), f"{whole / fast:.2f}", "≥ 1.0 GB/s"),
        Figure(f"the reference `re`, 1 MiB, all {kinds}", _rate(slow), f"{slow / fast:.5f}"),
    ]
    rows += _dense(matcher, every["github-pat"], runs)
    short = text[5_000:5_100]
    call = seconds(lambda: matcher.scan(short), runs * 1_000)
    rows += [
        Figure("100 bytes", f"{call * 1e6:.2f} µs", asked="≤ 3 µs"),
        Figure("a matcher from the cache", milliseconds(cached), asked="≤ 20 ms"),
        Figure("a matcher, a process and the patterns, compiled anew", f"{build:.2f} s"),
    ]
    return rows


def _source() -> bytes:
    """Python source of this machine: the standard library and what is installed beside it."""
    roots = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
    files = sorted({path for root in roots for path in Path(root).rglob("*.py")})
    text = b"".join(path.read_bytes() for path in files)
    return (text * (_TEXT // len(text) + 1))[:_TEXT]


def _dense(matcher: Matcher, pattern: Pattern, runs: int) -> list[Figure]:
    rng = random.Random(1)
    tokens = [generate(pattern, rng).reveal() for _ in range(5_000)]
    ways: dict[str, Callable[[bytes], bytes]] = {
        "plain": bytes,
        "in UTF-16": lambda data: data.decode().encode("utf-16-le"),
        "in base64": base64.b64encode,
        "in JSON": lambda data: data.replace(b"\n", b"\\n"),
    }
    rows = []
    first = 0.0
    for name, way in ways.items():
        data = way(b"\n".join(tokens))
        took = seconds(lambda data=data: matcher.scan(data), runs)
        first = first or took
        rows.append(
            Figure(
                f"{len(data) / 1e3:.0f} KB of 5,000 tokens, {name}",
                milliseconds(took),
                f"{took / first:.2f}",
                "≤ 100 ms" if name == "plain" else "",
            )
        )
    tenfold = b"\n".join(tokens * 10)
    took = seconds(lambda: matcher.scan(tenfold), max(runs // 3, 1))
    rows.append(
        Figure(
            f"{len(tenfold) / 1e3:.0f} KB of 50,000 tokens, plain",
            milliseconds(took),
            f"{took / first:.1f}",
            "linear: 10",
        )
    )
    return rows


def _rate(value: float) -> str:
    return f"{value / 1e9:.2f} GB/s" if value >= 1e8 else f"{value / 1e6:.1f} MB/s"


def _fresh(cache: Path) -> None:
    """Compile in a process of its own, as a database is built once in each."""
    code = (
        "import sys; from pathlib import Path; from scanner.matcher.engine import Matcher; "
        "from scanner.patterns.loader import load; Matcher(load(), Path(sys.argv[1]))"
    )
    for file in cache.iterdir():
        file.unlink()
    subprocess.run([sys.executable, "-c", code, str(cache)], check=True, env=dict(os.environ))
