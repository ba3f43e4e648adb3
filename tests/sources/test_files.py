"""Files on this machine: all that is there is read once, and what is not read is named."""

from __future__ import annotations

import io
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from scanner.errors import ConfigurationError
from scanner.matcher.engine import Matcher
from scanner.model import Inspection, ObjectKind
from scanner.sources.files import scan_folder, scan_stream
from tests.archives.build import zipped

Scan = Callable[..., list[Inspection]]


@pytest.fixture
def scan(matcher: Matcher) -> Scan:
    def run(root: Path, **options: int) -> list[Inspection]:
        return list(scan_folder(root, matcher, **options))

    return run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def paths(inspections: list[Inspection], root: Path) -> list[str]:
    places = [found.place.path or "" for one in inspections for found in one.found]
    return [os.path.relpath(path, root) for path in places]


def partial(inspections: list[Inspection]) -> list[str]:
    return [reason for one in inspections for reason in one.partial]


def test_files_come_by_name_and_folders_after_the_files_beside_them(
    scan: Scan, tree: Path, token: Callable[[], str]
) -> None:
    names = ["b", "a", "c/b", "c/a", "B", "a.d/x", "c/d/x", ".hidden", ".github/x", "é"]
    write(tree, {name: token() for name in names})
    expected = [".hidden", "B", "a", "b", "é", ".github/x", "a.d/x", "c/a", "c/b", "c/d/x"]
    assert paths(scan(tree), tree) == expected
    assert [(one.objects, one.blobs) for one in scan(tree)] == [(1, 1)] * len(names)


def test_a_token_is_found_at_its_line_and_column(
    scan: Scan, tree: Path, token: Callable[[], str]
) -> None:
    first, second, third = token(), token(), token()
    text = f"ü = {first}\r\n\n\t{second} {third}"
    (tree / "x").write_bytes(text.encode())
    (only,) = scan(tree)
    size = len(text.encode())
    assert (only.bytes, only.scanned_bytes, only.partial) == (size, size, ())
    assert [
        (found.candidate.secret.reveal().decode(), found.place.line, found.place.column)
        for found in only.found
    ] == [(first, 1, 6), (second, 3, 2), (third, 3, 3 + len(second))]
    for found in only.found:
        assert (found.place.kind, found.place.object_id) == (ObjectKind.BLOB, "")
        assert found.place.path == str(tree / "x")


def test_an_empty_file_and_an_empty_folder(scan: Scan, tree: Path) -> None:
    assert scan(tree) == []
    (tree / "empty").touch()
    assert scan(tree) == [Inspection(objects=1, blobs=1)]


def test_links_are_not_followed(
    scan: Scan, tree: Path, tmp_path: Path, token: Callable[[], str]
) -> None:
    write(tree, {"inner/real": token()})
    write(tmp_path, {"outside/secret": token(), "secret": token()})
    for name, target in {
        "loop": ".",
        "inner/up": "..",
        "self": "self",
        "broken": "nowhere",
        "out": "../outside",
        "file-out": "../secret",
        "absolute": str(tmp_path / "secret"),
        "twice": "inner/real",
    }.items():
        (tree / name).symlink_to(target)
    inspections = scan(tree)
    assert paths(inspections, tree) == ["inner/real"]
    assert partial(inspections) == []


def test_pipes_sockets_and_devices_are_left_alone(
    scan: Scan, tree: Path, token: Callable[[], str]
) -> None:
    os.mkfifo(tree / "a-pipe")
    write(tree, {"b": token()})
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tree / "c-socket"))
        inspections = scan(tree)
        assert paths(inspections, tree) == ["b"]
        assert partial(inspections) == []
    # Nobody may have opened the pipe: a writer that waits for its reader must not be woken.
    with pytest.raises(OSError, match="No such device or address"):
        os.open(tree / "a-pipe", os.O_WRONLY | os.O_NONBLOCK)


def test_gits_own_folder_is_left_out(scan: Scan, tree: Path, token: Callable[[], str]) -> None:
    names = [".git/config", "vendor/.git/x", ".github/x", "a.git/x", "sub/.git", ".gitignore"]
    write(tree, {name: token() for name in names})
    assert paths(scan(tree), tree) == [".gitignore", ".github/x", "a.git/x", "sub/.git"]
    assert paths(scan(tree / ".git"), tree) == [".git/config"]  # named on purpose


def test_a_name_may_be_any_bytes(scan: Scan, tree: Path, token: Callable[[], str]) -> None:
    for name in (b"\xff\xfe.txt", b"line\nbreak", b"\x1b[2J", "ü".encode("latin-1")):
        (tree / os.fsdecode(name)).write_text(token())
    assert sorted(os.fsencode(path) for path in paths(scan(tree), tree)) == sorted(
        [b"\xff\xfe.txt", b"line\nbreak", b"\x1b[2J", b"\xfc"]
    )


def test_a_file_that_is_too_large_is_named(
    scan: Scan, tree: Path, token: Callable[[], str]
) -> None:
    secret = token()
    write(tree, {"a-fits": secret, "b-large": f"{secret}\n", "c": token()})
    inspections = scan(tree, most_bytes=len(secret))
    assert paths(inspections, tree) == ["a-fits", "c"]
    assert partial(inspections) == [f"{tree}/b-large: larger than {len(secret)} bytes"]
    assert [one.blobs for one in inspections] == [1, 0, 1]


def test_what_goes_away_meanwhile_is_named(
    matcher: Matcher, tree: Path, token: Callable[[], str]
) -> None:
    write(tree, dict.fromkeys(("a", "b", "c", "d", "x/a", "y/a"), token()))
    under_way = scan_folder(tree, matcher)
    inspections = [next(under_way)]
    for name in ("b", "c", "x/a"):
        (tree / name).unlink()
    (tree / "x").rmdir()
    (tree / "b").mkdir()
    os.mkfifo(tree / "c")
    (tree / "d").rename(tree / "e")
    (tree / "d").symlink_to("e")
    inspections += under_way
    assert paths(inspections, tree) == ["a", "y/a"]
    assert [reason.removeprefix(f"{tree}/") for reason in partial(inspections)] == [
        "b: Is a directory",
        "c: is no regular file any more",
        "d: Too many levels of symbolic links",
        "x: No such file or directory",
    ]


@pytest.fixture
def deep(tree: Path) -> Iterator[Callable[[str, int, str], None]]:
    """Write a file at the end of so many folders of one name, whose path no call could take."""

    def build(name: str, depth: int, content: str) -> None:
        folder = os.open(tree, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=folder)
            inner = os.open(name, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = inner
        file = os.open("end", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
        with os.fdopen(file, "w") as end:
            end.write(content)
        os.close(folder)

    yield build
    subprocess.run(["rm", "-rf", tree], check=True)  # Python's own would recurse


def test_a_tree_deeper_than_the_stack_is_read(
    scan: Scan, tree: Path, deep: Callable[[str, int, str], None], token: Callable[[], str]
) -> None:
    deep("d", 1_500, token())
    assert paths(scan(tree), tree) == ["d/" * 1_500 + "end"]


def test_a_folder_that_cannot_be_listed_is_named(
    scan: Scan, tree: Path, deep: Callable[[str, int, str], None], token: Callable[[], str]
) -> None:
    write(tree, {"a": token(), "z/a": token()})
    deep("folder" * 40, 20, token())
    inspections = scan(tree)
    assert paths(inspections, tree) == ["a", "z/a"]
    (reason,) = partial(inspections)
    assert reason.startswith(f"{tree}/{'folder' * 40}/")
    assert reason.endswith(": File name too long")


def test_the_root_may_be_a_file(scan: Scan, tree: Path, token: Callable[[], str]) -> None:
    write(tree, {"only": token(), "other": token()})
    assert paths(scan(tree / "only"), tree) == ["only"]
    assert partial(scan(tree / "only", most_bytes=3)) == [f"{tree}/only: larger than 3 bytes"]


def test_a_root_that_is_a_link_means_what_it_leads_to(
    scan: Scan, tree: Path, tmp_path: Path, token: Callable[[], str]
) -> None:
    write(tree, {"only": token()})
    (tmp_path / "to-folder").symlink_to("tree")
    (tmp_path / "to-file").symlink_to("tree/only")
    assert paths(scan(tmp_path / "to-folder"), tmp_path) == ["to-folder/only"]
    assert paths(scan(tmp_path / "to-file"), tmp_path) == ["to-file"]


def test_a_root_that_is_no_folder_and_no_file_is_one_sentence(
    matcher: Matcher, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "file").touch()
    for name, said in {
        "missing": "does not exist",
        "broken": "does not exist",
        "self": "cannot be read (Too many levels",
        "file/below": "cannot be read (Not a directory)",
        "x" * 300: "cannot be read (File name too long)",
        "pipe": "neither a folder nor a file",
        "/dev/null": "neither a folder nor a file",
    }.items():
        with pytest.raises(ConfigurationError) as caught:
            scan_folder(tmp_path / name, matcher)
        assert said in str(caught.value)


def test_a_stream_is_read_to_its_bound(matcher: Matcher, token: Callable[[], str]) -> None:
    first, second = token(), token()
    data = f"{first}\n{second}\n".encode()
    whole = scan_stream(io.BytesIO(data), matcher)
    assert [(found.place.path, found.place.line) for found in whole.found] == [("-", 1), ("-", 2)]
    assert (whole.bytes, whole.blobs, whole.partial) == (len(data), 1, ())
    assert scan_stream(io.BytesIO(data), matcher, len(data)) == whole
    cut = scan_stream(io.BytesIO(data), matcher, len(data) - 2)
    assert len(cut.found) == 1
    assert (cut.bytes, cut.partial) == (
        len(data) - 2,
        (f"-: only the first {len(data) - 2} bytes were read",),
    )
    assert scan_stream(io.BytesIO(b""), matcher) == Inspection(objects=1, blobs=1)


def test_a_stream_that_comes_in_drops_is_read_whole(
    matcher: Matcher, token: Callable[[], str]
) -> None:
    secret = token()
    reading, writing = os.pipe()
    with subprocess.Popen(
        ["sh", "-c", 'printf %s "$1"; printf %s "$2"', "sh", secret[:9], secret[9:]], stdout=writing
    ):
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            (found,) = scan_stream(stream, matcher).found
    assert found.candidate.secret.reveal().decode() == secret


def test_archives_are_opened(scan: Scan, tree: Path, token: Callable[[], str]) -> None:
    leaked = token()
    tree.joinpath("a.zip").write_bytes(zipped({"b/c.txt": b"\n" + leaked.encode()}))
    tree.joinpath("cut.zip").write_bytes(zipped({"b/c.txt": b"x" * 99})[:-30])
    inspections = scan(tree)
    (found,) = (found for one in inspections for found in one.found)
    assert (found.place.path, found.place.line) == (f"{tree}/a.zip!b/c.txt", 2)
    assert partial(inspections) == [f"{tree}/cut.zip: archive-damaged: 1"]
