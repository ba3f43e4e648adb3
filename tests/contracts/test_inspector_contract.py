"""What every `Inspector` owes: all candidates of a pack that git made, each with its places."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import pytest

from scanner.errors import MalformedPackError
from scanner.git.inline import InlineInspector
from scanner.git.pack import Bounds
from scanner.git.sandbox import SandboxInspector
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Ruleset
from scanner.model import Checksum, Inspection, ObjectKind, Place
from scanner.ports import Inspector, KnownBlobs, Pack
from tests.archives.build import COMPRESS, tarred, zip_entry, zipped

Token = Callable[[], str]
Make = Callable[[Bounds | None], Inspector]


@pytest.fixture(scope="module")
def sandbox(ruleset: Ruleset, tmp_path_factory) -> Iterator[Make]:
    """Children are warm for the whole module: the contract is the same for a used one."""
    made: dict[Bounds | None, SandboxInspector] = {}
    cache = tmp_path_factory.mktemp("cache")

    def make(bounds: Bounds | None) -> Inspector:
        if bounds not in made:
            made[bounds] = SandboxInspector(ruleset, bounds=bounds, cache_dir=cache)
        return made[bounds]

    yield make
    for inspector in made.values():
        inspector.close()


@pytest.fixture(scope="module")
def inline(matcher: Matcher) -> Make:
    return lambda bounds: InlineInspector(matcher, bounds)


@pytest.fixture(params=["sandbox", "inline"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.getfixturevalue(request.param)


@pytest.fixture
def inspector(make: Make) -> Inspector:
    return make(None)


def inspect(
    inspector: Inspector,
    data: bytes,
    hash_size: int = 20,
    partial: tuple[str, ...] = (),
    known: KnownBlobs | None = None,
) -> Inspection:
    with os.fdopen(os.memfd_create("pack"), "w+b") as file:
        file.write(data)
        file.seek(0)
        return inspector.inspect(Pack(cast(BinaryIO, file), len(data), partial), hash_size, known)


def places(inspection: Inspection) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for one in inspection.found:
        found.setdefault(one.candidate.secret.reveal().decode(), []).append(one.place)
    return found


def test_a_token_in_a_file(repository, inspector: Inspector, token: Token) -> None:
    leaked = token()
    repository.commit({"README": "hello\n"})
    commit = repository.commit({"src/key.py": f"first\nkey = '{leaked}'\n"})
    repository.commit({"README": "later\n"})
    inspection = inspect(inspector, repository.pack())
    (found,) = inspection.found
    candidate, place = found.candidate, found.place
    assert candidate.secret.reveal().decode() == leaked
    assert (candidate.pattern, candidate.issuer) == ("npm-access-token", "npm")
    assert (candidate.start, candidate.end) == (13, 13 + len(leaked))
    assert candidate.checksum is Checksum.VALID
    assert candidate.mask == f"npm_…{leaked[-4:]}"
    assert candidate.encoding == "plain"
    assert place == Place(
        object_id=repository.git("rev-parse", "HEAD:src/key.py"),
        kind=ObjectKind.BLOB,
        path="src/key.py",
        commit=commit,
        committed_at=place.committed_at,
        line=2,
        column=8,
    )
    assert place.committed_at is not None
    assert place.committed_at.timestamp() == int(
        repository.git("log", "-1", "--format=%ct", commit)
    )
    assert leaked not in repr(inspection)


def test_tokens_in_names_messages_and_authors(repository, inspector, token: Token) -> None:
    said, author, tagged, file, folder = (token() for _ in range(5))
    commit = repository.commit({"a": "b"}, f"oops {said}")
    repository.git("commit", "--quiet", "--allow-empty", "-m", "x", f"--author={author} <a@b>")
    by_author = repository.git("rev-parse", "HEAD")
    repository.git("tag", "-a", "v1", "-m", f"tagged {tagged}")
    named = repository.commit({f"{file}.txt": "1", f"{folder}/x": "2"})
    found = places(inspect(inspector, repository.pack()))
    assert {key: [(p.kind, p.commit, p.path) for p in values] for key, values in found.items()} == {
        said: [(ObjectKind.COMMIT, commit, None)],
        author: [(ObjectKind.COMMIT, by_author, None)],
        tagged: [(ObjectKind.TAG, None, None)],
        file: [(ObjectKind.TREE, named, None)],
        folder: [(ObjectKind.TREE, named, None)],
    }


def test_what_was_read_is_counted(repository, inspector: Inspector, token: Token) -> None:
    repository.commit({"a": "one", "b/c": "two", "d": token()})
    inspection = inspect(inspector, repository.pack("--window=0"))
    kinds = repository.git(
        "cat-file", "--batch-check=%(objecttype) %(objectsize)", "--batch-all-objects"
    )
    sizes = [int(line.split()[1]) for line in kinds.splitlines()]
    assert (inspection.objects, inspection.blobs) == (len(sizes), 3)
    assert inspection.bytes == inspection.scanned_bytes == sum(sizes)
    assert inspection.partial == ()


def test_a_sha256_pack(sha256_repository, inspector: Inspector, token: Token) -> None:
    leaked = token()
    commit = sha256_repository.commit({"a": leaked})
    data = sha256_repository.pack()
    (place,) = places(inspect(inspector, data, 32))[leaked]
    assert (place.commit, place.path) == (commit, "a")
    with pytest.raises(MalformedPackError):
        inspect(inspector, data, 20)


def write(repository, kind: str, data: bytes) -> str:
    """Store an object as it is, however odd; returns its id."""
    done = subprocess.run(
        ["git", "hash-object", "--literally", "-w", "-t", kind, "--stdin"],
        cwd=repository.clone, input=data, check=True, capture_output=True,
    )  # fmt: skip
    return done.stdout.decode().strip()


def odd_history(repository, token: Token) -> None:
    """Make what a reader may stumble over."""
    repository.commit({"same/one": (same := token()), "same/two": same, "crlf": f"\r\n\n{token()}"})
    path = repository.clone / b"caf\xe9 \n\xf0\x9f\x94\x91".decode("utf-8", "surrogateescape")
    path.write_text(token())
    repository.git("checkout", "--quiet", "-b", "side")
    repository.commit({"long.txt": f"{'x' * 70_000} {token()} {token()}\n{token()}"})
    blob = write(repository, "blob", token().encode())
    tree = write(repository, "tree", b"100644 \xff\0" + bytes.fromhex(blob))
    for _ in range(30):  # a path longer than any system's
        tree = write(repository, "tree", b"40000 " + b"d" * 200 + b"\0" + bytes.fromhex(tree))
    head = repository.git("rev-parse", "HEAD")
    for moment in (b"0", b"-5", b"99999999999999999999", b"253402300800", b"soon", b""):
        lines = b"tree %s\nparent %s\nauthor a <a> 1 +0000\ncommitter a <a> %s +0000\n\n%s" % (
            tree.encode(), head.encode(), moment, token().encode(),
        )  # fmt: skip
        head = write(repository, "commit", lines)
    write(repository, "commit", b"tree nowhere\n" + token().encode())
    write(repository, "tag", b"no tag at all " + token().encode())


def pack_of_everything(repository) -> bytes:
    """Every object there is: git itself would not walk some of these."""
    names = repository.git("cat-file", "--batch-check=%(objectname)", "--batch-all-objects")
    done = subprocess.run(
        ["git", "pack-objects", "--quiet", "--stdout"],
        cwd=repository.clone, input=names.encode() + b"\n", check=True, capture_output=True,
    )  # fmt: skip
    return done.stdout


def test_all_inspectors_say_the_same(repository, sandbox: Make, inline: Make, token: Token) -> None:
    odd_history(repository, token)
    data = pack_of_everything(repository)
    expected = inspect(inline(None), data)
    paths = [one.place.path for one in expected.found if one.place.path is not None]
    assert len(expected.found) == 16
    assert len(paths) == 8
    assert max(map(len, paths)) > 4_000
    assert "caf\udce9 \n\U0001f511" in paths
    assert inspect(sandbox(None), data) == expected


def test_a_pack_may_be_read_again(repository, inspector: Inspector, token: Token) -> None:
    repository.commit({"a": token()})
    data = repository.pack()
    with os.fdopen(os.memfd_create("pack"), "w+b") as file:
        file.write(data)
        file.flush()  # its position stays at the end
        pack = Pack(cast(BinaryIO, file), len(data))
        first = inspector.inspect(pack)
        assert len(first.found) == 1
        assert inspector.inspect(pack) == first
        assert file.tell() == len(data)


def test_no_bytes_are_no_objects(inspector: Inspector) -> None:
    assert inspect(inspector, b"", partial=("a-reason: 1",)) == Inspection(partial=("a-reason: 1",))


def test_a_pack_of_no_objects(repository, inspector: Inspector) -> None:
    repository.commit({})
    done = subprocess.run(
        ["git", "pack-objects", "--quiet", "--stdout"],
        cwd=repository.clone, input=b"", check=True, capture_output=True,
    )  # fmt: skip
    assert inspect(inspector, done.stdout) == Inspection()


def broken(data: bytes) -> dict[str, bytes]:
    return {
        "no pack": b"<html>" + data[6:],
        "cut": data[:-1],
        "cut short": data[:20],
        "longer": data + b"\0",
        "a bit turned": data[:40] + bytes([data[40] ^ 1]) + data[41:],
        "of another version": data[:4] + b"\0\0\0\x09" + data[8:],
        "claims more": data[:8] + b"\xff\xff\xff\xff" + data[12:],
    }


def test_what_is_no_pack_is_refused_for_good(repository, inspector, token: Token) -> None:
    leaked = token()
    repository.commit({"a": leaked})
    data = repository.pack()
    for name, bad in broken(data).items():
        with pytest.raises(MalformedPackError) as caught:
            inspect(inspector, bad)
        assert caught.value.retry is False, name
        assert str(caught.value).startswith("The pack"), name
        assert leaked not in str(caught.value)
    assert leaked in places(inspect(inspector, data))  # and the next one is read


def test_archives_are_opened(repository, make: Make, token: Token) -> None:
    deep, flat, beside = token(), token(), token()
    wheel = zipped({"pkg/keys.py": f"\n\nkey = {deep}\n".encode()})
    bundle = COMPRESS["zstd"](tarred({"dist/x.whl": wheel, "a.txt": beside.encode()}))
    commit = repository.commit(
        {
            "out/bundle": bundle,
            **{f"p/{name}": pack(flat.encode()) for name, pack in COMPRESS.items()},
            "locked.zip": zip_entry(b"a", b"packed", method=8, flags=1, size=9),
            "cut.gz": COMPRESS["gzip"](bytes(range(99)))[:-20],
        }
    )
    inspection = inspect(make(None), repository.pack())
    found = places(inspection)
    (place,) = found[deep]
    assert (place.path, place.commit) == ("out/bundle!dist/x.whl!pkg/keys.py", commit)
    assert (place.line, place.column) == (3, 7)
    assert place.object_id == repository.git("rev-parse", "HEAD:out/bundle")
    assert [one.path for one in found[beside]] == ["out/bundle!a.txt"]
    assert sorted(one.path or "" for one in found[flat]) == sorted(
        f"p/{name}!content" for name in COMPRESS
    )
    assert sorted(inspection.partial) == ["archive-damaged: 1", "archive-member-encrypted: 1"]


def test_archives_of_a_pack_have_one_bound(repository, make: Make, token: Token) -> None:
    names = [f"{n}.gz" for n in range(9)]
    repository.commit({name: COMPRESS["gzip"](bytes(1_000) + name.encode()) for name in names})
    repository.commit({"key": token()})
    inspection = inspect(make(Bounds(unpacked_bytes=5_000)), repository.pack())
    assert inspection.partial == ("archives-too-large: 5",)
    assert len(inspection.found) == 1


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        (Bounds(object_bytes=2_000), "object-too-large: 2"),
        (Bounds(total_bytes=2_000), "pack-too-large: 2000"),
        (Bounds(objects=2), "too-many-objects: 6"),
        (Bounds(depth=0), "delta-chain-too-long: 1"),
    ],
)
def test_a_bound_that_was_met_is_said(
    repository, make: Make, token: Token, bounds: Bounds, reason: str
) -> None:
    text = "".join(f"{number} {token()[:10]}\n" for number in range(500))
    repository.commit({"big": text}, f"kept {token()}")
    repository.commit({"big": text + "more\n"})
    data = repository.pack("--delta-base-offset")
    inspection = inspect(make(bounds), data, partial=("a-reason: 1",))
    assert inspection.partial == ("a-reason: 1", reason)
    assert inspect(make(None), data).partial == ()
