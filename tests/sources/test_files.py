"""Files on this machine: all that is there is read once, and what is not read is named."""

from __future__ import annotations

import io
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scanner.errors import ConfigurationError
from scanner.matcher.engine import Matcher
from scanner.matcher.position import Spot
from scanner.sources.files import FileReader, Reading
from scanner.sources.walk import Batch, list_files
from tests.archives.build import zipped


@dataclass
class Seen:
    """What reading all files at and below a root gave."""

    found: list[tuple[str, Spot]] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0

    def add(self, batch: Batch, reading: Reading) -> None:
        self.partial += batch.partial
        self.partial += [f"{batch.paths[index]}: {why}" for index, why in reading.partial]
        self.found += [(batch.paths[index], spot) for index, spot in reading.found]
        self.files += reading.files
        self.bytes += reading.bytes

    def paths(self, root: Path) -> list[str]:
        return [os.path.relpath(spot.path(path) or "", root) for path, spot in self.found]


Scan = Callable[..., Seen]


@pytest.fixture
def scan(matcher: Matcher) -> Scan:
    def run(*roots: Path, **options: int) -> Seen:
        seen, reader = Seen(), FileReader(matcher, **options)
        for batch in list_files(roots):
            seen.add(batch, reader.read(batch.paths, follow=batch.follow))
        return seen

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


def test_files_come_by_name_and_folders_after_the_files_beside_them(
    scan: Scan, tree: Path, token: Callable[[], str]
) -> None:
    names = ["b", "a", "c/b", "c/a", "B", "a.d/x", "c/d/x", ".hidden", ".github/x", "é"]
    write(tree, {name: token() for name in names})
    expected = [".hidden", "B", "a", "b", "é", ".github/x", "a.d/x", "c/a", "c/b", "c/d/x"]
    assert scan(tree).paths(tree) == expected
    assert scan(tree).files == len(names)


def test_a_token_is_found_at_its_line_and_column(
    scan: Scan, tree: Path, token: Callable[[], str]
) -> None:
    first, second, third = token(), token(), token()
    text = f"ü = {first}\r\n\n\t{second} {third}"
    (tree / "x").write_bytes(text.encode())
    seen = scan(tree)
    assert (seen.files, seen.bytes, seen.partial) == (1, len(text.encode()), [])
    assert [
        (path, spot.candidate.secret.reveal().decode(), spot.line, spot.column)
        for path, spot in seen.found
    ] == [
        (f"{tree}/x", first, 1, 6),
        (f"{tree}/x", second, 3, 2),
        (f"{tree}/x", third, 3, 3 + len(second)),
    ]


def test_an_empty_file_and_an_empty_folder(scan: Scan, tree: Path) -> None:
    assert scan(tree) == Seen()
    (tree / "empty").touch()
    assert scan(tree) == Seen(files=1)


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
    seen = scan(tree)
    assert seen.paths(tree) == ["inner/real"]
    assert seen.partial == []


def test_pipes_sockets_and_devices_are_left_alone(
    scan: Scan, tree: Path, token: Callable[[], str]
) -> None:
    os.mkfifo(tree / "a-pipe")
    write(tree, {"b": token()})
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tree / "c-socket"))
        seen = scan(tree)
        assert seen.paths(tree) == ["b"]
        assert seen.partial == []
    # Nobody may have opened the pipe: a writer that waits for its reader must not be woken.
    with pytest.raises(OSError, match="No such device or address"):
        os.open(tree / "a-pipe", os.O_WRONLY | os.O_NONBLOCK)


def test_gits_own_folder_is_left_out(scan: Scan, tree: Path, token: Callable[[], str]) -> None:
    names = [".git/config", "vendor/.git/x", ".github/x", "a.git/x", "sub/.git", ".gitignore"]
    write(tree, {name: token() for name in names})
    assert scan(tree).paths(tree) == [".gitignore", ".github/x", "a.git/x", "sub/.git"]
    assert scan(tree / ".git").paths(tree) == [".git/config"]  # named on purpose


def test_a_name_may_be_any_bytes(scan: Scan, tree: Path, token: Callable[[], str]) -> None:
    for name in (b"\xff\xfe.txt", b"line\nbreak", b"\x1b[2J", "ü".encode("latin-1")):
        (tree / os.fsdecode(name)).write_text(token())
    assert sorted(os.fsencode(path) for path in scan(tree).paths(tree)) == sorted(
        [b"\xff\xfe.txt", b"line\nbreak", b"\x1b[2J", b"\xfc"]
    )


def test_a_file_that_is_too_large_is_named(
    scan: Scan, tree: Path, token: Callable[[], str]
) -> None:
    secret = token()
    write(tree, {"a-fits": secret, "b-large": f"{secret}\n", "c": token()})
    seen = scan(tree, most_bytes=len(secret))
    assert seen.paths(tree) == ["a-fits", "c"]
    assert seen.partial == [f"{tree}/b-large: larger than {len(secret)} bytes"]
    assert seen.files == 2


def test_what_goes_away_meanwhile_is_named(
    matcher: Matcher, tree: Path, token: Callable[[], str]
) -> None:
    write(tree, dict.fromkeys(("a", "b", "c", "d", "x/a", "y/a"), token()))
    for number in range(32):  # as many as are listed before the first is read
        write(tree, {f"0/{number}": "nothing"})
    write(tree, dict.fromkeys((f"9/{number}" for number in range(32)), "nothing"))
    under_way = list_files([tree])
    listed = [next(under_way), next(under_way)]
    for name in ("b", "c", "x/a"):
        (tree / name).unlink()
    (tree / "x").rmdir()
    (tree / "b").mkdir()
    os.mkfifo(tree / "c")
    (tree / "d").rename(tree / "e")
    (tree / "d").symlink_to("e")
    seen, reader = Seen(), FileReader(matcher)
    for batch in [*listed, *under_way]:
        seen.add(batch, reader.read(batch.paths))
    assert seen.paths(tree) == ["a", "y/a"]
    assert [reason.removeprefix(f"{tree}/") for reason in seen.partial] == [
        "b: is no regular file any more",
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
    assert scan(tree).paths(tree) == ["d/" * 1_500 + "end"]


def test_a_folder_that_cannot_be_listed_is_named(
    scan: Scan, tree: Path, deep: Callable[[str, int, str], None], token: Callable[[], str]
) -> None:
    write(tree, {"a": token(), "z/a": token()})
    deep("folder" * 40, 20, token())
    seen = scan(tree)
    assert seen.paths(tree) == ["a", "z/a"]
    (reason,) = seen.partial
    assert reason.startswith(f"{tree}/{'folder' * 40}/")
    assert reason.endswith(": File name too long")


def test_the_root_may_be_a_file(scan: Scan, tree: Path, token: Callable[[], str]) -> None:
    write(tree, {"only": token(), "other": token()})
    assert scan(tree / "only").paths(tree) == ["only"]
    assert scan(tree / "only", most_bytes=3).partial == [f"{tree}/only: larger than 3 bytes"]


def test_a_root_that_is_a_link_means_what_it_leads_to(
    scan: Scan, tree: Path, tmp_path: Path, token: Callable[[], str]
) -> None:
    write(tree, {"only": token()})
    (tmp_path / "to-folder").symlink_to("tree")
    (tmp_path / "to-file").symlink_to("tree/only")
    assert scan(tmp_path / "to-folder").paths(tmp_path) == ["to-folder/only"]
    assert scan(tmp_path / "to-file").paths(tmp_path) == ["to-file"]


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
            list_files([tmp_path, tmp_path / name])
        assert said in str(caught.value)


def test_a_stream_is_read_to_its_bound(matcher: Matcher, token: Callable[[], str]) -> None:
    first, second = token(), token()
    data = f"{first}\n{second}\n".encode()

    def read(most_bytes: int = len(data)) -> Reading:
        return FileReader(matcher, most_bytes).read_stream(io.BytesIO(data))

    whole = read()
    assert [spot.line for _, spot in whole.found] == [1, 2]
    assert (whole.bytes, whole.files, whole.partial) == (len(data), 1, [])
    cut = read(len(data) - 2)
    assert len(cut.found) == 1
    assert (cut.bytes, cut.partial) == (
        len(data) - 2,
        [(0, f"only the first {len(data) - 2} bytes were read")],
    )
    assert FileReader(matcher).read_stream(io.BytesIO(b"")) == Reading(files=1)


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
            ((_, found),) = FileReader(matcher).read_stream(stream).found
    assert found.candidate.secret.reveal().decode() == secret


def test_archives_are_opened(scan: Scan, tree: Path, token: Callable[[], str]) -> None:
    leaked = token()
    tree.joinpath("a.zip").write_bytes(zipped({"b/c.txt": b"\n" + leaked.encode()}))
    tree.joinpath("cut.zip").write_bytes(zipped({"b/c.txt": b"x" * 99})[:-30])
    seen = scan(tree)
    assert [(spot.path(path), spot.line) for path, spot in seen.found] == [
        (f"{tree}/a.zip!b/c.txt", 2)
    ]
    assert seen.partial == [f"{tree}/cut.zip: archive-damaged: 1"]


def test_room_that_is_used_again_holds_nothing_of_the_file_before(
    scan: Scan, tree: Path, token: Callable[[], str]
) -> None:
    first, last = token(), token()
    write(tree, {"a": "." * 3_000_000 + f" {first}", "b": "", "c": f"{last} ", "d": "y" * 40})
    seen = scan(tree)
    assert [(path[-1], spot.candidate.secret.reveal().decode()) for path, spot in seen.found] == [
        ("a", first), ("c", last),
    ]  # fmt: skip
    assert [spot.candidate.start for _, spot in seen.found] == [3_000_001, 0]


def test_a_file_that_does_not_know_its_size_is_read_whole(scan: Scan) -> None:
    version = Path("/proc/version")
    seen = scan(version)
    assert version.stat().st_size == 0
    assert (seen.files, seen.bytes) == (1, len(version.read_bytes()))
    assert scan(version, most_bytes=9).partial == ["/proc/version: larger than 9 bytes"]


def test_several_targets_are_read_in_their_order(
    scan: Scan, tree: Path, token: Callable[[], str]
) -> None:
    write(tree, {"b": token(), "a/x": token(), "a/y": token(), "c": token()})
    (tree / "link").symlink_to("c")
    seen = scan(tree / "link", tree / "b", tree / "a", tree / "c")
    assert seen.paths(tree) == ["link", "b", "a/x", "a/y", "c"]
    assert scan(*[tree / "b"] * 100).files == 100
