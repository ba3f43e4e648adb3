"""The pack reader against packs that git makes, and packs that nobody should make."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanner.embedded.git_server import git
from scanner.errors import MalformedPackError
from scanner.git.delta import apply_delta
from scanner.git.pack import Bounds, PackReader
from scanner.model import ObjectKind

Entry = tuple[int, bytes, bytes]  # kind's number, what stands before the stream, content
COMMIT, TREE, BLOB, TAG, OFS, REF = 1, 2, 3, 4, 6, 7


def read(pack: bytes, hash_size: int = 20, **bounds: int) -> dict[str, tuple[str, bytes | None]]:
    reader = PackReader(pack, Bounds(**bounds), hash_size)
    return {item.id: (item.kind.value, item.data) for item in reader.objects()}


def reference(clone: Path) -> dict[str, tuple[str, bytes]]:
    """What git says the repository holds."""
    output = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"],
        cwd=clone, check=True, capture_output=True,
    ).stdout  # fmt: skip
    found, position = {}, 0
    while position < len(output):
        end = output.index(b"\n", position)
        object_id, kind, size = output[position:end].decode().split()
        found[object_id] = (kind, output[end + 1 : end + 1 + int(size)])
        position = end + int(size) + 2
    return found


def history(repository, changes: int = 12) -> None:
    rng = random.Random(7)
    lines = [rng.randbytes(20).hex() for _ in range(200)]
    for number in range(changes):
        lines[rng.randrange(len(lines))] = rng.randbytes(20).hex()
        files = {"a/long.txt": "\n".join(lines), f"b/{number % 4}.txt": str(number)}
        repository.commit({**files, "empty": "", "bin": rng.randbytes(3_000)}, f"change {number}")
    repository.git("tag", "-a", "v1", "-m", "a tag")


@pytest.mark.parametrize(
    "arguments",
    [(), ("--delta-base-offset",), ("--window=0",), ("--delta-base-offset", "--depth=4000")],
)
def test_every_object_as_git_has_it(repository, arguments: tuple[str, ...]) -> None:
    history(repository)
    assert read(repository.pack(*arguments)) == reference(repository.clone)


def test_a_cache_too_small_for_anything_changes_nothing(repository) -> None:
    history(repository)
    pack = repository.pack("--delta-base-offset", "--depth=100")
    assert read(pack, cache_bytes=0) == reference(repository.clone)


def test_sha256(sha256_repository) -> None:
    history(sha256_repository, 3)
    pack = sha256_repository.pack("--delta-base-offset")
    assert read(pack, 32) == reference(sha256_repository.clone)
    with pytest.raises(MalformedPackError):
        read(pack, 20)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    contents=st.lists(st.binary(max_size=400) | st.text(max_size=400), min_size=1, max_size=6),
    offsets=st.booleans(),
)
def test_whatever_is_stored_is_read(tmp_path_factory, contents: list, offsets: bool) -> None:
    folder = tmp_path_factory.mktemp("any")
    git("init", "--quiet", str(folder))
    for content in contents:
        data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
        for version in (data * 3, data * 3 + b"x"):
            (folder / "f").write_bytes(version)
            git("hash-object", "-w", "--no-filters", "f", cwd=folder)
    expected = reference(folder)
    made = subprocess.run(
        ["git", "pack-objects", "-q", "--stdout", *(["--delta-base-offset"] if offsets else [])],
        cwd=folder, check=True, capture_output=True, input="\n".join(expected).encode() + b"\n",
    ).stdout  # fmt: skip
    assert read(made) == expected


def header(number: int, size: int) -> bytes:
    out, byte, rest = bytearray(), (number << 4) | (size & 15), size >> 4
    while rest:
        out.append(byte | 0x80)
        byte, rest = rest & 0x7F, rest >> 7
    return bytes([*out, byte])


def entry(number: int, content: bytes, before: bytes = b"", size: int | None = None) -> bytes:
    claimed = len(content) if size is None else size
    return header(number, claimed) + before + zlib.compress(content)


def pack_of(
    *entries: bytes, count: int | None = None, version: int = 2, after: bytes = b""
) -> bytes:
    total = len(entries) if count is None else count
    body = b"PACK" + version.to_bytes(4, "big") + total.to_bytes(4, "big")
    body += b"".join(entries) + after
    return body + hashlib.sha1(body).digest()  # noqa: S324 (git's)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def delta(source: int, target: int, code: bytes) -> bytes:
    return varint(source) + varint(target) + code


def blob_id(data: bytes) -> bytes:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).digest()  # noqa: S324 (git's)


BASE = b"a base of some length"
GOOD = delta(len(BASE), 5, b"\x90\x05")  # copy its first five bytes

BROKEN = {
    "empty": b"",
    "not a pack": b"HELO" + bytes(40),
    "no room for its count": pack_of(count=9),
    "count of four thousand million": pack_of(entry(BLOB, BASE), count=0xFFFF_FFFF),
    "unknown version": pack_of(entry(BLOB, BASE), version=9),
    "kind zero": pack_of(entry(0, BASE)),
    "kind five": pack_of(entry(5, BASE)),
    "bytes after": pack_of(entry(BLOB, BASE), after=b"more"),
    "one object too few": pack_of(entry(BLOB, BASE), entry(BLOB, b"b" * 40), count=1),
    "one object too many": pack_of(entry(BLOB, os.urandom(40)), count=2),
    "larger than claimed": pack_of(entry(BLOB, BASE, size=3)),
    "smaller than claimed": pack_of(entry(BLOB, BASE, size=99)),
    "claims an exabyte": pack_of(entry(BLOB, BASE, size=1 << 60)),
    "claims beyond numbers": pack_of(b"\xb0" + b"\xff" * 12 + b"\x01" + zlib.compress(BASE)),
    "bomb": pack_of(entry(BLOB, bytes(30 << 20), size=100)),
    "not zlib": pack_of(header(BLOB, 30) + b"x" * 30),
    "wrong adler": pack_of(header(BLOB, 21) + zlib.compress(BASE)[:-1] + b"\0"),
    "stream cut off": pack_of(header(BLOB, 21) + zlib.compress(BASE)[:-4]),
    "offset before the pack": pack_of(entry(BLOB, BASE), entry(OFS, GOOD, b"\xff\x7f")),
    "offset to itself": pack_of(entry(BLOB, BASE), entry(OFS, GOOD, b"\0")),
    "offset between entries": pack_of(entry(BLOB, BASE), entry(OFS, GOOD, b"\5")),
    "offset beyond numbers": pack_of(entry(BLOB, BASE), entry(OFS, GOOD, b"\xff" * 20 + b"\1")),
    "base missing": pack_of(entry(REF, GOOD, bytes(20))),
    "header cut off": pack_of(entry(BLOB, b"x" * 30), b"\xb0", count=2),
}


def deltas_gone_wrong() -> dict[str, bytes]:
    wrong = {
        "other base": delta(3, 5, b"\x90\x05"),
        "copies from outside": delta(len(BASE), 5, b"\x91\xff\x05"),
        "copies too much": delta(len(BASE), 70_000, b"\x80"),
        "reserved code": delta(len(BASE), 5, b"\0"),
        "makes too much": delta(len(BASE), 2, b"\x90\x05"),
        "makes too little": delta(len(BASE), 9, b"\x90\x05"),
        "data cut off": delta(len(BASE), 5, b"\5ab"),
        "copy cut off": delta(len(BASE), 5, b"\xff\1"),
        "no sizes": b"\x80",
        "size beyond numbers": b"\xff" * 30,
        "nothing": b"",
    }
    first = entry(BLOB, BASE)
    return {
        name: pack_of(first, entry(OFS, code, bytes([len(first)]))) for name, code in wrong.items()
    }


@pytest.mark.parametrize("name", [*BROKEN, *deltas_gone_wrong()])
def test_malformed_packs(name: str) -> None:
    with pytest.raises(MalformedPackError):
        read({**BROKEN, **deltas_gone_wrong()}[name])


def test_the_makers_of_broken_packs_can_make_good_ones() -> None:
    first = entry(BLOB, BASE)
    pack = pack_of(first, entry(OFS, GOOD, bytes([len(first)])))
    assert read(pack) == {
        blob_id(BASE).hex(): ("blob", BASE),
        blob_id(BASE[:5]).hex(): ("blob", BASE[:5]),
    }


def test_a_base_that_comes_later_and_is_a_delta_itself() -> None:
    middle = b"a bas"
    pack = pack_of(
        entry(REF, delta(5, 2, b"\x90\x02"), blob_id(middle)),
        entry(REF, GOOD, blob_id(BASE)),
        entry(BLOB, BASE),
    )
    assert {data for _, data in read(pack).values()} == {BASE, middle, b"a "}


def test_every_cut_and_a_thousand_mutations(repository) -> None:
    history(repository, 4)
    pack = repository.pack("--delta-base-offset")
    for end in range(0, len(pack), 97):
        with pytest.raises(MalformedPackError):
            read(pack[:end])
    rng = random.Random(11)
    survived = 0
    for _ in range(1_000):
        body = bytearray(pack[:-20])
        for _ in range(rng.randint(1, 3)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        mutant = bytes(body) + hashlib.sha1(body).digest()  # noqa: S324 (git's)
        try:
            read(mutant, total_bytes=64 << 20)
            survived += 1
        except MalformedPackError:
            pass
    assert survived < 900  # most mutations are seen even when the checksum was repaired
    with pytest.raises(MalformedPackError, match="checksum"):
        read(pack[:100] + bytes([pack[100] ^ 1]) + pack[101:])


@given(source=st.binary(max_size=64), code=st.binary(max_size=64))
def test_a_delta_is_applied_or_malformed(source: bytes, code: bytes) -> None:
    try:
        made = apply_delta(source, code)
    except MalformedPackError:
        return
    assert len(made) < 1 << 20


def bounded(pack: bytes, **bounds: int) -> tuple[list[bytes | None], tuple[str, ...]]:
    reader = PackReader(pack, Bounds(**bounds))
    return [item.data for item in reader.objects()], reader.partial


def test_an_oversized_object_is_skipped_and_its_children_too() -> None:
    big = b"z" * 5_000
    first = entry(BLOB, big)
    child = entry(OFS, delta(5_000, 5, b"\x90\x05"), bytes([len(first)]))
    data, partial = bounded(pack_of(first, child, entry(BLOB, BASE)), object_bytes=1_000)
    assert sorted(data, key=bool) == [None, None, BASE]
    assert partial == ("object-too-large: 2",)
    assert PackReader(pack_of(first), Bounds(object_bytes=9)).objects().__next__().id == (
        blob_id(big).hex()
    )


def test_a_delta_whose_result_is_too_large() -> None:
    first = entry(BLOB, b"q" * 0x10000)
    bomb = entry(OFS, delta(0x10000, 0x10000 * 40, b"\x80" * 40), offset(len(first)))
    data, partial = bounded(pack_of(first, bomb), object_bytes=0x10000)
    assert data == [b"q" * 0x10000, None]
    assert partial == ("object-too-large: 1",)


def offset(distance: int) -> bytes:
    out = [distance & 0x7F]
    while distance := distance >> 7:
        distance -= 1
        out.insert(0, distance & 0x7F | 0x80)
    return bytes(out)


def chain(length: int) -> bytes:
    entries = [entry(BLOB, BASE)]
    for number in range(length):
        code = b"\x90\x10" + b"\5" + b"%05d" % number
        source = len(BASE)
        entries.append(entry(OFS, delta(source, 21, code), offset(len(entries[-1]))))
    return pack_of(*entries)


def test_a_chain_without_end_is_cut_at_the_bound() -> None:
    data, partial = bounded(chain(30), depth=10)
    assert len([one for one in data if one is not None]) == 11
    assert partial == ("delta-chain-too-long: 20",)


def test_a_deep_chain_needs_no_recursion() -> None:
    data, partial = bounded(chain(3_000), cache_bytes=0)
    assert len(data) == 3_001
    assert None not in data
    assert partial == ()


def test_totals_end_the_reading_with_a_reason() -> None:
    pack = pack_of(*(entry(BLOB, bytes([number]) * 1_000) for number in range(10)))
    data, partial = bounded(pack, total_bytes=3_500)
    assert len(data) == 3
    assert partial == ("pack-too-large: 3500",)
    data, partial = bounded(pack, objects=4)
    assert len(data) == 4
    assert partial == ("too-many-objects: 10",)


def test_kinds() -> None:
    pack = pack_of(*(entry(number, BASE) for number in (COMMIT, TREE, BLOB, TAG)))
    kinds = [item.kind for item in PackReader(pack, Bounds()).objects()]
    assert kinds == [ObjectKind.COMMIT, ObjectKind.TREE, ObjectKind.BLOB, ObjectKind.TAG]
