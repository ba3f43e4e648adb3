"""`patrol scan dir` over a tree of real source, beside Kingfisher and detect-secrets with the same
rules. A peer is taken from PATH; one that is not there is skipped, and its row says so."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from figures import Figure

from scanner.matcher.pattern import Pattern
from scanner.patterns.loader import load

_TREE = 1_000_000_000  # bytes
_QUICK_TREE = 32_000_000
_PART = 1 / 40  # of the tree, for a peer that would take minutes
_LEAST, _MOST = 9_000, 5_000_000  # bytes of a file: about 25,000 files then
_ROOTS = ("/usr/include", "/usr/share", "/usr/lib")
_SUFFIXES = frozenset({
    ".c", ".cfg", ".cmake", ".conf", ".cpp", ".css", ".csv", ".el", ".go", ".h", ".hpp", ".html",
    ".ini", ".ipp", ".java", ".js", ".json", ".lua", ".m4", ".md", ".pl", ".pm", ".po", ".pod",
    ".py", ".pyi", ".rb", ".rs", ".rst", ".sh", ".sql", ".svg", ".tcl", ".toml", ".ts", ".txt",
    ".vim", ".xml", ".yaml", ".yml",
})  # fmt: skip
_PLUGINS = (
    "ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector",
    "CloudantDetector", "DiscordBotTokenDetector", "GitHubTokenDetector", "GitLabTokenDetector",
    "Base64HighEntropyString", "HexHighEntropyString", "IbmCloudIamDetector",
    "IbmCosHmacDetector", "IPPublicDetector", "JwtTokenDetector", "KeywordDetector",
    "MailchimpDetector", "NpmDetector", "OpenAIDetector", "PrivateKeyDetector",
    "PypiTokenDetector", "SendGridDetector", "SlackDetector", "SoftlayerDetector",
    "SquareOAuthDetector", "StripeDetector", "TelegramBotTokenDetector", "TwilioKeyDetector",
)  # fmt: skip


@dataclass(frozen=True)
class _Taken:
    seconds: float  # median
    memory: int  # bytes; the most that all of its processes held at once, over all runs


def measure(quick: bool) -> list[Figure]:
    runs = 1 if quick else 3
    with tempfile.TemporaryDirectory() as folder:
        tree, part = Path(folder, "tree"), Path(folder, "part")
        size = _QUICK_TREE if quick else _TREE
        files, total = _copy(tree, size)
        some, small = _copy(part, int(size * _PART))
        everything = load().patterns
        few = [pattern for pattern in everything if pattern.issuer in ("github", "npm")]
        title = f"{files:,} files, {total / 1e9:.2f} GB"
        return [
            *_beside(title, tree, total, everything, Path(folder), runs, ask_slow=False),
            *_beside(title, tree, total, few, Path(folder), runs, ask_slow=False),
            *_beside(
                f"{some:,} files of them, {small / 1e6:.0f} MB",
                *(part, small, everything, Path(folder), runs),
                ask_slow=True,
            ),
            *_small(Path(folder), 3 if quick else 15),
        ]


def _beside(
    title: str,
    tree: Path,
    total: int,
    patterns: Sequence[Pattern],
    folder: Path,
    runs: int,
    *,
    ask_slow: bool,
) -> Iterator[Figure]:
    ours = _take(_patrol(tree, patterns), folder, runs)
    yield Figure(
        f"{title}, {len(patterns)} patterns",
        f"{ours.seconds:.2f} s, {total / ours.seconds / 1e9:.2f} GB/s",
        "1",
    )
    yield Figure("… memory of all processes", f"{ours.memory / 1e6:.0f} MB", "", "≤ 300 MB")
    peers = {"kingfisher": (_kingfisher(tree, patterns, folder), "≥ 3")}
    if ask_slow:
        peers = {"detect-secrets": (_detect_secrets(tree, patterns, folder), "≥ 20")}
    for name, (command, asked) in peers.items():
        if shutil.which(name) is None:
            yield Figure(f"… {name}", "skipped: it is not on PATH", "", asked)
            continue
        theirs = _take(command, folder, runs)
        yield Figure(
            f"… {name}, {theirs.memory / 1e6:.0f} MB",
            f"{theirs.seconds:.2f} s",
            f"{theirs.seconds / ours.seconds:.1f}",
            asked,
        )


def _small(folder: Path, runs: int) -> Iterator[Figure]:
    empty = folder / "empty"
    empty.mkdir()
    yield Figure("an empty folder", _ms(_take(_patrol(empty, ()), folder, runs)), "", "≤ 250 ms")
    (empty / "only").write_text("nothing\n")
    yield Figure("a folder of one file", _ms(_take(_patrol(empty, ()), folder, runs)))


def _ms(taken: _Taken) -> str:
    return f"{taken.seconds * 1e3:.0f} ms"


def _patrol(tree: Path, patterns: Sequence[Pattern]) -> list[str]:
    chosen = ["--patterns", ",".join(pattern.id for pattern in patterns)] if patterns else []
    return [sys.executable, "-m", "scanner.cli", "scan", "dir", str(tree), "--exit-code=0", *chosen]


def _kingfisher(tree: Path, patterns: Sequence[Pattern], folder: Path) -> list[str]:
    """Its own rules off, ours on; nothing is validated, and nothing but files is looked at."""
    rules = folder / f"kingfisher-{len(patterns)}"
    rules.mkdir(exist_ok=True)
    # JSON is YAML.
    (rules / "rules.yml").write_text(
        json.dumps(
            {
                "rules": [
                    {
                        "name": pattern.name,
                        "id": f"bench.{pattern.id}",
                        "pattern": _bounded(pattern),
                        "min_entropy": 0.0,
                        "confidence": "medium",
                        "examples": [],
                    }
                    for pattern in patterns
                ]
            }
        )
    )
    return [
        *("kingfisher", "scan", str(tree), "--no-validate", "--rules-path", str(rules)),
        *("--load-builtins=false", "--no-update-check", "--format", "jsonl"),
        *("--rule-cache-dir", str(rules)),
    ]


def _detect_secrets(tree: Path, patterns: Sequence[Pattern], folder: Path) -> list[str]:
    """Its own plugins off but for one of ours."""
    plugin = folder / "bench_plugin.py"
    expressions = ",\n".join(f"        re.compile({_bounded(p)!r})" for p in patterns)
    plugin.write_text(
        "import re\nfrom detect_secrets.plugins.base import RegexBasedDetector\n\n\n"
        "class BenchDetector(RegexBasedDetector):\n    secret_type = 'bench'\n"
        f"    denylist = [\n{expressions},\n    ]\n"
    )
    off = [part for name in _PLUGINS for part in ("--disable-plugin", name)]
    return [
        *("detect-secrets", "-C", str(tree), "-c", str(len(os.sched_getaffinity(0)))),
        *("scan", "--all-files", "--no-verify", "-p", str(plugin), *off),
    ]


def _bounded(pattern: Pattern) -> str:
    if not pattern.bounds:
        return f"({pattern.regex})"
    return f"(?:^|[^{pattern.bounds}])({pattern.regex})(?:[^{pattern.bounds}]|$)"


def _take(command: Sequence[str], folder: Path, runs: int) -> _Taken:
    """Run once to warm every cache, then `runs` times."""
    taken = [_once(command, folder) for _ in range(runs + 1)][1:]
    return _Taken(
        statistics.median(seconds for seconds, _ in taken), max(memory for _, memory in taken)
    )


def _once(command: Sequence[str], folder: Path) -> tuple[float, int]:
    environment = {
        **os.environ,
        "PATROL_DATA_DIR": str(folder / "data"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    most = 0
    over = threading.Event()
    began = time.perf_counter()
    process = subprocess.Popen(
        list(command),
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip

    def watch() -> None:
        nonlocal most
        while not over.wait(0.02):
            most = max(most, _resident(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, said = process.communicate()
    seconds = time.perf_counter() - began
    over.set()
    watcher.join()
    if process.returncode not in (0, 200, 205):  # Kingfisher's: findings are there
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: {said.decode()[-500:]}")
    return seconds, most


def _resident(pid: int) -> int:
    """Bytes that a process and all below it hold; what two share counts twice."""
    total = 0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            pages = int(Path(f"/proc/{one}/statm").read_text().split()[1])
            for children in Path(f"/proc/{one}/task").glob("*/children"):
                waiting += map(int, children.read_text().split())
        except (OSError, IndexError):  # it has ended meanwhile
            continue
        total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


def _copy(tree: Path, most: int) -> tuple[int, int]:
    """Copy source that is on this machine, again if there is too little; (files, bytes)."""
    files = total = turn = 0
    while total < most:
        before = total
        for source in _sources():
            target = tree / str(turn) / str(source).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            files += 1
            total += target.stat().st_size
            if total >= most:
                break
        if total == before:
            raise RuntimeError("there is no source on this machine")
        turn += 1
    return files, total


def _sources() -> Iterator[Path]:
    for root in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), *_ROOTS):
        for folder, inner, names in os.walk(root):
            inner[:] = sorted(name for name in inner if name != "__pycache__")
            for name in sorted(names):
                path = Path(folder, name)
                if path.suffix not in _SUFFIXES or path.is_symlink():
                    continue
                if _LEAST <= path.stat().st_size <= _MOST and os.access(path, os.R_OK):
                    yield path
