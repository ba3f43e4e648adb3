"""Dense input costs time in proportion to its size, and threads do not disturb each other."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Pattern
from scanner.patterns.generate import generate
from scanner.patterns.loader import load

RULES = load()
MATCHER = Matcher(RULES)


def dense(pattern: Pattern, size: int) -> bytes:
    rng = random.Random(7)
    lines = [generate(pattern, rng).reveal() for _ in range(200)]
    block = b"\n".join(lines) + b"\n"
    return (block * (size // len(block) + 1))[:size]


def seconds(data: bytes) -> float:
    """Processor time, the best of five: others only ever add, and waiting for them counts not."""
    times = []
    for _ in range(5):
        begin = time.thread_time()
        MATCHER.scan(data)
        times.append(time.thread_time() - begin)
    return min(times)


def test_a_dense_file_is_linear() -> None:
    npm = next(p for p in RULES.patterns if p.id == "npm-access-token")
    data = dense(npm, 210_000)
    assert len(MATCHER.scan(data)) > 5_000
    assert seconds(data) < 1
    # Five times the bytes; a quadratic scan would need twenty-five times as long.
    assert seconds(dense(npm, 5 * 210_000)) < 15 * seconds(data)


def test_a_long_run_of_the_alphabet_is_linear() -> None:
    assert MATCHER.scan(b"a" * 100_000) == []
    assert seconds(b"a" * 1_000_000) < 2


def test_a_token_at_either_end_of_a_long_run_is_judged_by_its_bounds() -> None:
    token = generate("azure-devops-pat-legacy", random.Random(8)).reveal()
    run = b"a" * 1_100_000  # more than a slice
    assert MATCHER.scan(run + token) == []
    (candidate,) = MATCHER.scan(run + b"." + token + b"." + run)
    assert candidate.start == len(run) + 1


def test_threads_share_a_matcher() -> None:
    data = dense(RULES.patterns[0], 60_000)
    expected = MATCHER.scan(data)
    start = Barrier(4)

    def work(_: int) -> bool:
        start.wait(10)
        return all(MATCHER.scan(data) == expected for _ in range(5))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [True] * 4
