"""Readers: the same answers in the same order whoever reads, no keys, and none that dies costs
more than the file it died of."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scanner.errors import InspectionError
from scanner.git.wire import InspectionLoader
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Ruleset
from scanner.model import Inspection
from scanner.readers.answer import load_answer
from scanner.readers.crew import Crew
from scanner.sources.walk import Batch, list_files


@pytest.fixture
def crew(ruleset: Ruleset, tmp_path: Path) -> Iterator[Callable[..., Crew]]:
    started: list[Crew] = []

    def start(*targets: Path, jobs: int = 2, **options: Any) -> Crew:
        made = Crew(jobs, **options)
        started.append(made)
        made.begin(ruleset, frozenset(), tmp_path / "cache", targets)
        return made

    yield start
    for made in started:
        made.close()


@pytest.fixture
def tree(tmp_path: Path, token: Callable[[], str]) -> Path:
    """A thousand files, most with a token."""
    root = tmp_path / "tree"
    for number in range(1_000):
        file = root / f"{number % 7}" / f"{number % 5}" / f"{number:04}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x" * number + (f" {token()}\n" if number % 3 else "\n"))
    return root


def whole(crew: Crew, batches: Iterator[Batch]) -> Inspection:
    parts = [inspection for _, inspection in crew.read(batches)]
    return Inspection(
        found=tuple(found for part in parts for found in part.found),
        blobs=sum(part.blobs for part in parts),
        bytes=sum(part.bytes for part in parts),
        partial=tuple(reason for part in parts for reason in part.partial),
    )


def test_what_is_found_does_not_depend_on_who_reads(
    crew: Callable[..., Crew], tree: Path, matcher: Matcher
) -> None:
    files = [path for batch in list_files([tree]) for path in batch.paths]
    expected = [
        (path, candidate.start, candidate.secret)
        for path in files
        for candidate in matcher.scan(Path(path).read_bytes())
    ]
    assert len(expected) == 666
    for jobs in (1, 2, 5):
        read = whole(crew(tree, jobs=jobs), list_files([tree]))
        got = [(f.place.path, f.candidate.start, f.candidate.secret) for f in read.found]
        assert got == expected
        assert (read.blobs, read.partial) == (1_000, ())


def test_a_few_files_need_one_reader(crew: Callable[..., Crew], tree: Path) -> None:
    some = crew(tree / "0" / "0", jobs=8)
    assert whole(some, list_files([tree / "0" / "0"])).blobs == 29
    assert len(some.readers) == 1
    all_of_it = crew(tree, jobs=3)
    assert whole(all_of_it, list_files([tree])).blobs == 1_000
    assert len(all_of_it.readers) == 3


def test_a_reader_has_no_environment_and_gave_up_what_the_system_lets_it(
    crew: Callable[..., Crew], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATROL_PEPPERS", "k1:not-for-readers")
    made = crew(tree)
    whole(made, list_files([tree]))
    (reader, *_) = made.readers
    environment = Path(f"/proc/{reader.pid}/environ").read_bytes()
    assert b"not-for-readers" not in environment
    assert {entry.partition(b"=")[0] for entry in environment.split(b"\0")} <= {
        b"", b"PYTHONPATH", b"LANG", b"LC_CTYPE",
    }  # fmt: skip
    assert set(reader.gave_up) == {"no_new_privileges", "no_network", "no_files"}
    status = Path(f"/proc/{reader.pid}/status").read_text()
    assert ("NoNewPrivs:\t1" in status) == reader.gave_up["no_new_privileges"]


def test_a_reader_reads_nothing_but_the_targets(
    crew: Callable[..., Crew], tree: Path, tmp_path: Path, token: Callable[[], str]
) -> None:
    beside = tmp_path / "beside"
    beside.write_text(token())
    made = crew(tree)
    read = whole(made, iter([Batch((str(beside),)), Batch((str(tree / "0/0/0035"),))]))
    if not made.readers[0].gave_up["no_files"]:
        pytest.skip("this kernel has no Landlock")
    assert read.partial == (f"{beside}: Permission denied",)
    assert read.blobs == 1


def test_a_file_that_kills_its_reader_is_named_and_its_neighbours_are_read(
    crew: Callable[..., Crew], tree: Path
) -> None:
    victim = tree / "3" / "2" / "0017"
    # Every byte of it may end a token: its reader overruns its time, and the kernel ends it.
    victim.write_bytes(b"a" * 64_000_000)
    read = whole(crew(tree, timeout=0.1), list_files([tree]))
    assert read.partial == (f"{victim}: the process that read it died of it",)
    assert read.blobs == 999
    assert len(read.found) == 665
    assert [found.place.path for found in read.found] == sorted(
        found.place.path or "" for found in read.found
    )


def test_readers_that_die_are_replaced(crew: Callable[..., Crew], tree: Path) -> None:
    made = crew(tree)
    expected = whole(made, list_files([tree]))
    for reader in made.readers:
        os.kill(reader.pid, signal.SIGKILL)
    again = whole(made, list_files([tree]))
    assert again == expected
    assert all(reader.is_ready for reader in made.readers[:1])


def test_one_that_dies_at_work_costs_nothing(crew: Callable[..., Crew], tree: Path) -> None:
    expected = whole(crew(tree), list_files([tree]))
    made = crew(tree)
    parts: list[Inspection] = []
    for number, (_, inspection) in enumerate(made.read(list_files([tree]))):
        parts.append(inspection)
        if number % 10 == 3:
            os.kill(made.readers[0].pid, signal.SIGKILL)
    assert sum(part.blobs for part in parts) == 1_000
    assert tuple(found for part in parts for found in part.found) == expected.found
    assert not any(part.partial for part in parts)


def test_readers_that_do_not_start_are_an_error(
    ruleset: Ruleset, tree: Path, tmp_path: Path
) -> None:
    with Crew(2) as made:
        os.kill(made.readers[0].pid, signal.SIGKILL)
        made.begin(ruleset, frozenset(), tmp_path / "cache", [tree])
        with pytest.raises(InspectionError, match="does not start"):
            whole(made, list_files([tree]))


def test_a_stream_is_read_by_a_reader(
    crew: Callable[..., Crew], tmp_path: Path, token: Callable[[], str]
) -> None:
    file = tmp_path / "stream"
    file.write_text(f"\n{token()} # patrol:allow")
    with file.open("rb") as stream:
        read = crew(most_bytes=1_000).read_stream(stream)
    (found,) = read.found
    assert (found.place.path, found.place.line, found.allowed) == ("-", 2, True)


@pytest.mark.parametrize(
    "answer",
    [
        {}, [], None, {"counts": [1, 2], "partial": [], "found": []},
        {"counts": [2, 2, 2], "partial": [], "found": []},
        {"counts": [-1, 2, 2], "partial": [], "found": []},
        {"counts": [1, 2, 2], "partial": [[1, "x"]], "found": []},
        {"counts": [1, 2, 2], "partial": [[0, "x" * 201]], "found": []},
        {"counts": [1, 2, 2], "partial": [[0, 7]], "found": []},
        {"counts": [1, 2, 2], "partial": [], "found": [[0]]},
        {"counts": [1, 2, 2], "partial": [], "found": [[0, 1, 1, "", False, "no", 0, 1, "", ""]]},
    ],
)  # fmt: skip
def test_an_answer_that_is_out_of_order_is_refused(ruleset: Ruleset, answer: object) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        load_answer(InspectionLoader(ruleset), answer, ["only"])
