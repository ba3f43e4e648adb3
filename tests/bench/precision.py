"""Candidates in source that nobody planted anything in: how many are none.

    .venv/bin/python tests/bench/precision.py /usr/share /usr/lib ...

A candidate is false when it is neither valid by its structure nor labelled real. Labels are hashes
of (pattern, token) in labels.txt: `--label` prints the hashes of what is neither, to be looked at
one by one before they are committed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scanner.examine import examine
from scanner.matcher.engine import Matcher
from scanner.matcher.position import Spot
from scanner.model import Checksum
from scanner.patterns.loader import load

_LABELS = Path(__file__).with_name("labels.txt")
_MOST_BYTES = 128 << 20
_MOST = 100_000


def label(spot: Spot) -> str:
    """What labels.txt says of a real token: a hash, which gives nothing away of 80 bits or more."""
    candidate = spot.candidate
    text = candidate.pattern.encode() + b"\0" + candidate.secret.reveal()
    return hashlib.sha256(text).hexdigest()


def contents(roots: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Every regular file once, however many names it has."""
    seen: set[tuple[int, int]] = set()
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in sorted(names):
                path = f"{folder}/{name}"
                try:
                    status = os.lstat(path)
                    key = (status.st_dev, status.st_ino)
                    if not stat.S_ISREG(status.st_mode) or key in seen:
                        continue
                    seen.add(key)
                    if 0 < status.st_size <= _MOST_BYTES:
                        yield path, Path(path).read_bytes()
                except OSError as error:
                    print(f"not read: {path}: {error.strerror}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("roots", nargs="+", type=Path)
    parser.add_argument("--label", action="store_true", help="print hashes of what has no label")
    chosen = parser.parse_args()
    real = set(_LABELS.read_text().split())
    matcher = Matcher(load(), Path.home() / ".cache" / "patrol")
    size = files = 0
    counts: Counter[tuple[str, str]] = Counter()
    for path, data in contents(chosen.roots):
        examined = examine(data, matcher, _MOST)
        size += len(data) + examined.unpacked
        files += 1
        for spot in examined.spots:
            if spot.candidate.checksum is Checksum.VALID:
                kind = "valid"
            elif label(spot) in real:
                kind = "labelled real"
            else:
                kind = "FALSE"
                if chosen.label:
                    print(label(spot), spot.candidate.pattern, spot.candidate.mask, path, spot.line)
            counts[spot.candidate.pattern, kind] += 1
    print(f"{size / 1e9:.2f} GB in {files} files")
    for (pattern, kind), count in sorted(counts.items()):
        print(f"{pattern:32} {kind:14} {count}")
    false = sum(count for (_, kind), count in counts.items() if kind == "FALSE")
    print(f"false: {false}, {false / (size / 1e9):.2f} a GB")


if __name__ == "__main__":
    main()
