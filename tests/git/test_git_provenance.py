"""From a pack to places: which commit, which path, which line."""

from __future__ import annotations

from collections.abc import Callable

from scanner.git.inspect import inspect_pack
from scanner.git.pack import Bounds
from scanner.git.provenance import Commit, trace
from scanner.matcher.engine import Matcher
from scanner.model import Inspection, ObjectKind, Place

Token = Callable[[], str]


def places(inspection: Inspection) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for one in inspection.found:
        found.setdefault(one.candidate.secret.reveal().decode(), []).append(one.place)
    return found


def test_line_column_path_and_the_first_commit(repository, matcher: Matcher, token: Token) -> None:
    repository.commit({"README": "hello\n"})
    leaked, second = token(), token()
    files = {"src/app/key.py": f"first\nkey = '{leaked}'\n\n{second} {second}\n"}
    introduced = repository.commit(files)
    repository.commit({"README": "unrelated\n"})
    inspection = inspect_pack(repository.pack(), matcher)
    (place,) = places(inspection)[leaked]
    assert (place.kind, place.path, place.line, place.column) == (
        ObjectKind.BLOB, "src/app/key.py", 2, 8,
    )  # fmt: skip
    assert place.commit == introduced
    assert place.object_id == repository.git("rev-parse", "HEAD:src/app/key.py")
    assert place.committed_at is not None
    assert int(place.committed_at.timestamp()) == int(
        repository.git("log", "-1", "--format=%ct", introduced)
    )
    assert [(one.line, one.column) for one in places(inspection)[second]] == [(4, 1), (4, 42)]
    assert inspection.partial == ()
    assert inspection.blobs == 3
    assert inspection.bytes == inspection.scanned_bytes


def test_the_same_file_at_two_paths_and_a_later_third(repository, matcher, token: Token) -> None:
    content = f"x {token()}"
    first = repository.commit({"a/one": content, "b/two": content})
    repository.commit({"c/three": content})
    found = inspect_pack(repository.pack(), matcher).found
    assert {(one.place.commit, one.place.path) for one in found} == {
        (first, "a/one"),
        (first, "b/two"),
    }


def test_a_token_born_in_a_merge(repository, matcher: Matcher, token: Token) -> None:
    leaked = token()
    repository.commit({"f": "base"})
    repository.git("checkout", "--quiet", "-b", "side")
    repository.commit({"g": "side"})
    repository.git("checkout", "--quiet", "-")
    repository.commit({"h": "main"})
    repository.git("merge", "--quiet", "--no-commit", "side")
    merge = repository.commit({"f": leaked, ".gitattributes": "f -diff\n"})
    (place,) = places(inspect_pack(repository.pack(), matcher))[leaked]
    assert (place.commit, place.path) == (merge, "f")
    assert len(repository.git("rev-list", "--parents", "-1", merge).split()) == 3


def test_messages_authors_tags_and_names_are_matched(repository, matcher, token: Token) -> None:
    spoken, author, tag, name, folder = (token() for _ in range(5))
    commit = repository.commit({"a": "b"}, f"oops {spoken}")
    repository.git("config", "user.name", "ignored")
    repository.git("commit", "--quiet", "--allow-empty", "-m", "x", f"--author={author} <a@b>")
    by_author = repository.git("rev-parse", "HEAD")
    repository.git("tag", "-a", "v1", "-m", f"tagged {tag}")
    named = repository.commit({f"{name}.txt": "1", f"{folder}/x": "2"})
    found = places(inspect_pack(repository.pack(), matcher))
    kinds = {key: (place.kind, place.commit) for key, (place, *_) in found.items()}
    assert kinds == {
        spoken: (ObjectKind.COMMIT, commit),
        author: (ObjectKind.COMMIT, by_author),
        tag: (ObjectKind.TAG, None),
        name: (ObjectKind.TREE, named),
        folder: (ObjectKind.TREE, named),
    }
    assert all(place.path is None for (place, *_) in found.values())


def test_a_path_that_is_no_text(repository, matcher: Matcher, token: Token) -> None:
    leaked = token()
    repository.commit({})
    path = repository.clone / b"caf\xe9.txt".decode("utf-8", "surrogateescape")
    path.write_text(leaked)
    repository.commit({})
    (place,) = places(inspect_pack(repository.pack(), matcher))[leaked]
    assert place.path is not None
    assert place.path.encode("utf-8", "surrogateescape") == b"caf\xe9.txt"


def test_an_oversized_object_is_said_to_be(repository, matcher: Matcher, token: Token) -> None:
    leaked = token()
    repository.commit({"big": "x" * 9_000, "small": leaked})
    inspection = inspect_pack(repository.pack(), matcher, Bounds(object_bytes=8_000))
    assert leaked in places(inspection)
    assert inspection.partial == ("object-too-large: 1",)


def test_a_dense_file_is_bounded_and_said_to_be(repository, matcher: Matcher, token: Token) -> None:
    repository.commit({"dense": "".join(f"{token()}\n" for _ in range(60))})
    inspection = inspect_pack(repository.pack(), matcher, Bounds(found=50))
    assert [one.place.line for one in inspection.found] == list(range(1, 51))
    assert inspection.partial == ("too-many-candidates: 10",)


def test_a_path_that_is_too_long_is_cut_between_its_segments(token: Token) -> None:
    top, below, blob = ("1" * 40, "2" * 40, "3" * 40)
    name = f"{'f' * 60}-{token()}"  # the bound falls into the token
    trees = {
        top: b"40000 " + b"d" * 4_000 + b"\0" + bytes.fromhex(below),
        below: b"100644 " + name.encode() + b"\0" + bytes.fromhex(blob),
    }
    origins = trace({blob}, [Commit("4" * 40, top, (), None)], trees, 20)
    assert origins[blob].paths == ["d" * 4_000 + "/..."]
