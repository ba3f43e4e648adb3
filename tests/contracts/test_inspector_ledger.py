"""What every `Inspector` owes a ledger: it asks about large files only, in few questions, skips
what is known and nothing else, and calls a file bare only when it held nothing at all."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, cast

import pytest

from scanner.git.inline import InlineInspector
from scanner.git.inspect import LARGE, WORTH_ASKING
from scanner.git.pack import Bounds
from scanner.git.sandbox import SandboxInspector
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Ruleset
from scanner.model import Inspection
from scanner.patterns.generate import generate
from scanner.ports import Inspector, KnownBlobs, Pack

Token = Callable[[], str]
BOUNDS = Bounds(found=30)


class Ledger:
    """Knows what it is told, and keeps each question."""

    def __init__(self, *known: str) -> None:
        self.held = set(known)
        self.questions: list[list[str]] = []

    def __call__(self, object_ids: Sequence[str]) -> set[str]:
        self.questions.append(list(object_ids))
        return self.held.intersection(object_ids)

    @property
    def asked(self) -> list[str]:
        return [one for question in self.questions for one in question]


@pytest.fixture(scope="module")
def sandbox(ruleset: Ruleset, tmp_path_factory: Any) -> Iterator[Inspector]:
    made = SandboxInspector(ruleset, bounds=BOUNDS, cache_dir=tmp_path_factory.mktemp("cache"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def inline(matcher: Matcher) -> Inspector:
    return InlineInspector(matcher, BOUNDS)


@pytest.fixture(params=["sandbox", "inline"])
def inspector(request: pytest.FixtureRequest) -> Inspector:
    return cast(Inspector, request.getfixturevalue(request.param))


def inspect(
    inspector: Inspector, data: bytes, known: KnownBlobs | None, hash_size: int = 20
) -> Inspection:
    with os.fdopen(os.memfd_create("pack"), "w+b") as file:
        file.write(data)
        return inspector.inspect(Pack(cast(BinaryIO, file), len(data)), hash_size, known)


def large(number: int, size: int = 300_000) -> bytes:
    """A file of `size` bytes that is like no other one."""
    line = b"%d and nothing else\n" % number
    return (line * (size // len(line) + 1))[:size]


def blob(repository: Any, path: str) -> str:
    return cast(str, repository.git("rev-parse", f"HEAD:{path}"))


def test_large_files_are_asked_about_together(repository, inspector: Inspector) -> None:
    files = {f"f{number}": large(number) for number in range(16)}
    repository.commit({**files, "small": b"x" * (LARGE - 1), "least": large(99, LARGE)})
    ledger = Ledger()
    inspection = inspect(inspector, repository.pack(), ledger)
    expected = {blob(repository, path) for path in (*files, "least")}
    assert len(ledger.questions) == 1
    assert set(ledger.asked) == expected == set(inspection.bare)
    assert (inspection.known_blobs, inspection.blobs) == (0, 18)
    assert inspection.bytes == inspection.scanned_bytes


def test_what_is_known_is_counted_and_not_matched(repository, inspector: Inspector) -> None:
    files = {f"f{number}": large(number) for number in range(16)}
    repository.commit(files)
    data = repository.pack()
    before = inspect(inspector, data, None)
    known = [blob(repository, f"f{number}") for number in range(10)]
    after = inspect(inspector, data, Ledger(*known))
    assert (after.objects, after.blobs, after.bytes) == (18, 16, before.bytes)
    assert after.known_blobs == 10
    assert after.scanned_bytes == before.bytes - 10 * 300_000
    assert set(after.bare) == {blob(repository, f"f{number}") for number in range(10, 16)}
    assert (before.known_blobs, before.bare, before.partial) == (0, (), ())


def test_a_pack_with_few_of_them_is_left_alone(repository, inspector: Inspector) -> None:
    size = WORTH_ASKING // 4 - 1
    repository.commit({f"f{number}": large(number, size) for number in range(4)})
    ledger = Ledger()
    inspection = inspect(inspector, repository.pack(), ledger)
    assert (ledger.questions, inspection.bare) == ([], ())
    assert inspection.bytes == inspection.scanned_bytes


def test_many_large_files_are_a_question_each_eight_mebibytes(
    repository, inspector: Inspector
) -> None:
    count = 70
    repository.commit({f"f{number}": large(number) for number in range(count)})
    ledger = Ledger()
    inspection = inspect(inspector, repository.pack(), ledger)
    # 28 files reach 8 MiB; the 14 that are left reach 4 MiB.
    assert [len(question) for question in ledger.questions] == [28, 28, 14]
    assert len(set(inspection.bare)) == count


def test_the_rest_of_a_large_pack_is_bare_too(repository, inspector: Inspector) -> None:
    repository.commit({f"f{number}": large(number) for number in range(30)})
    ledger = Ledger()
    inspection = inspect(inspector, repository.pack(), ledger)
    assert [len(question) for question in ledger.questions] == [28]
    assert len(inspection.bare) == 30


def test_one_file_larger_than_any_question(repository, inspector: Inspector) -> None:
    repository.commit({"huge": large(1, 20 << 20), "other": large(2)})
    ledger = Ledger(blob(repository, "huge"))
    inspection = inspect(inspector, repository.pack(), ledger)
    assert inspection.known_blobs == 1
    assert inspection.bare == (blob(repository, "other"),)


def test_only_files_are_asked_about(repository, inspector: Inspector) -> None:
    text = repository.clone.with_name("message")
    text.write_bytes(large(1, 5_000_000))
    repository.git("commit", "--quiet", "--allow-empty", "-F", str(text))
    repository.git("tag", "-a", "v1", "-F", str(text))
    ledger = Ledger()
    assert inspect(inspector, repository.pack(), ledger).scanned_bytes > 10_000_000
    assert ledger.questions == []


def test_deltas_are_asked_about_by_their_own_id(repository, inspector: Inspector) -> None:
    source = random.Random(1)
    text = b"".join(b"%d\n" % source.getrandbits(64) for _ in range(20_000))
    for number in range(14):
        repository.commit({"f": text + large(number, 10_000)})
    data = repository.pack("--delta-base-offset")
    assert len(data) < 2 * len(text)
    ledger = Ledger()
    inspection = inspect(inspector, data, ledger)
    ids = repository.git("rev-list", "--objects", "--no-object-names", "--all").split()
    assert set(ledger.asked) <= set(ids)
    assert len(set(inspection.bare)) == 14


def test_a_file_with_a_candidate_is_never_bare(repository, inspector, token: Token) -> None:
    leaked = token()
    files = {f"f{number}": large(number) for number in range(16)}
    repository.commit({**files, "leak": large(50) + f"\n{leaked}\n".encode()})
    ledger = Ledger()
    inspection = inspect(inspector, repository.pack(), ledger)
    assert blob(repository, "leak") in ledger.asked
    assert set(inspection.bare) == {blob(repository, path) for path in files}
    (found,) = inspection.found
    assert found.place.object_id == blob(repository, "leak")


def test_what_a_filter_rules_out_was_a_candidate(
    repository, inspector: Inspector, ruleset: Ruleset, matcher: Matcher
) -> None:
    """A wrong checksum that is required, and a placeholder: nothing is found, nothing is bare."""
    legacy = next(p for p in ruleset.patterns if p.id == "azure-devops-pat-legacy")
    wrong = bytearray(generate(legacy).reveal())
    wrong[20] = ord("a") if wrong[20] != ord("a") else ord("b")
    cases = {"wrong": bytes(wrong), "placeholder": b"ghp_" + b"x" * 36}
    assert [matcher.examine(case) for case in cases.values()] == [([], False)] * 2
    files = {f"f{number}": large(number) for number in range(16)}
    filtered = {name: large(60) + b"\n" + case + b"\n" for name, case in cases.items()}
    repository.commit({**files, **filtered})
    inspection = inspect(inspector, repository.pack(), Ledger())
    assert inspection.found == ()
    assert set(inspection.bare) == {blob(repository, path) for path in files}


def test_a_file_whose_candidates_were_too_many_is_not_bare(
    repository, inspector: Inspector, token: Token
) -> None:
    files = {f"f{number}": large(number) for number in range(16)}
    full = "\n".join(token() for _ in range(BOUNDS.found))
    repository.commit({**files, "full": full, "more": large(50) + f"\n{token()}\n".encode()})
    inspection = inspect(inspector, repository.pack("--window=0"), Ledger())
    assert len(inspection.found) == BOUNDS.found
    assert inspection.partial == ("too-many-candidates: 1",)
    assert blob(repository, "more") not in inspection.bare
    assert len(inspection.bare) == 16


def test_a_file_over_a_bound_is_not_bare(repository, ruleset: Ruleset, matcher: Matcher) -> None:
    files = {f"f{number}": large(number) for number in range(16)}
    repository.commit({**files, "huge": large(50, 2_000_000)})
    small = InlineInspector(matcher, Bounds(object_bytes=1_000_000))
    inspection = inspect(small, repository.pack("--window=0"), Ledger())
    assert inspection.partial == ("object-too-large: 1",)
    # The others were read and matched whole, whatever was not.
    assert set(inspection.bare) == {blob(repository, path) for path in files}


def test_a_sha256_pack(sha256_repository, inspector: Inspector) -> None:
    sha256_repository.commit({f"f{number}": large(number) for number in range(16)})
    first = blob(sha256_repository, "f0")
    ledger = Ledger(first)
    inspection = inspect(inspector, sha256_repository.pack(), ledger, 32)
    assert (inspection.known_blobs, len(inspection.bare)) == (1, 15)
    assert len(first) == 64


def test_with_a_ledger_nothing_else_is_found(repository, inspector, token: Token) -> None:
    """The same findings in some order, whatever is known of the files that hold nothing."""
    files: dict[str, str | bytes] = {f"f{number}": large(number) for number in range(20)}
    files |= {f"leak{number}": large(50 + number) + token().encode() for number in range(4)}
    repository.commit({**files, "small": token()}, f"said {token()}")
    repository.commit({"dup/one": files["leak0"], "dup/two": files["f0"]})
    data = repository.pack()
    without = inspect(inspector, data, None)
    bare = inspect(inspector, data, Ledger()).bare
    source = random.Random(2)
    for share in (0, 5, len(bare)):
        inspection = inspect(inspector, data, Ledger(*source.sample(bare, share)))
        assert sorted(inspection.found, key=repr) == sorted(without.found, key=repr)
        assert replace(inspection, found=(), bare=(), known_blobs=0, scanned_bytes=0) == replace(
            without, found=(), scanned_bytes=0
        )
        assert inspection.known_blobs == share
