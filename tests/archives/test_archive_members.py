"""Every format that is opened: members, where they are, and what is said of the rest."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from scanner.archives.kind import Kind, tell
from scanner.examine import Examined, examine
from scanner.matcher.engine import Matcher
from tests.archives import build

Token = Callable[[], str]
Look = Callable[..., Examined]


@pytest.fixture
def look(matcher: Matcher) -> Look:
    def run(data: bytes, most: int = 1_000) -> Examined:
        return examine(data, matcher, most)

    return run


def places(examined: Examined) -> dict[str, list[tuple[str, int, int, int]]]:
    found: dict[str, list[tuple[str, int, int, int]]] = {}
    for spot in examined.spots:
        at = (spot.member, spot.candidate.start, spot.line, spot.column)
        found.setdefault(spot.candidate.secret.reveal().decode(), []).append(at)
    return found


def whole(examined: Examined) -> dict[str, list[tuple[str, int, int, int]]]:
    assert examined.partial == ()
    return places(examined)


@pytest.mark.parametrize("method", build.ZIP_METHODS)
@pytest.mark.parametrize("make", [build.zipped, build.streamed_zip])
def test_zip(look: Look, token: Token, method: str, make: Callable[..., bytes]) -> None:
    one, two = token(), token()
    text = f"a\nkey = {one}\n".encode()
    members = {"dir/a.txt": text, "empty": b"", "b.txt": two.encode()}
    assert whole(look(make(members, build.ZIP_METHODS[method]))) == {
        one: [("dir/a.txt", 8, 2, 7)],
        two: [("b.txt", 0, 1, 1)],
    }


def test_zip_members_of_newer_methods(look: Look, token: Token) -> None:
    for method, name in ((93, "zstd"), (95, "xz")):
        leaked = token()
        packed = build.COMPRESS[name](leaked.encode())
        data = build.zip_entry(b"a", packed, method=method, size=len(leaked))
        assert whole(look(data)) == {leaked: [("a", 0, 1, 1)]}
    unknown = look(build.zip_entry(b"a", b"packed", method=9, size=9))
    assert unknown.partial == ("archive-method-unknown: 1",)


def test_zip64_and_prefix_and_comment(look: Look, token: Token) -> None:
    leaked = token()
    data = build.zip64({"a": leaked.encode()})
    expected = {leaked: [("a", 0, 1, 1)]}
    assert whole(look(data)) == expected
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as archive:
        archive.comment = b"made for a test " * 1_000
    assert whole(look(out.getvalue())) == expected
    for front in (b"#!/bin/sh\nexit 0\n", b"GIF89a" + b"\x05" * 5_000):
        assert whole(look(front + data)) == expected
        assert whole(look(front + out.getvalue())) == expected


def test_a_zip64_end_record(look: Look, token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    leaked = token()
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 0)  # of the maker, not of the reader
    data = build.zipped({"a": leaked.encode()})
    assert b"PK\6\6" in data
    assert whole(look(data)) == {leaked: [("a", 0, 1, 1)]}
    assert whole(look(b"in front" + data)) == {leaked: [("a", 0, 1, 1)]}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("packed", [None, *build.COMPRESS])
def test_tar(look: Look, token: Token, form: int, packed: str | None) -> None:
    one, two, long = token(), token(), "d/" * 60 + "é.txt"
    data = build.tarred({"a.txt": f"\n{one}".encode(), long: two.encode(), "z": b"x" * 600}, form)
    if packed is not None:
        data = build.COMPRESS[packed](data)
    assert whole(look(data)) == {one: [("a.txt", 1, 2, 1)], two: [(long, 0, 1, 1)]}


def test_old_tar_without_magic(look: Look, token: Token) -> None:
    leaked = token()
    block = bytearray(build.tar_block(b"a", b"%011o\0" % len(leaked)))
    block[257:265] = bytes(8)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    data = bytes(block) + leaked.encode().ljust(512, b"\0") + bytes(1_024)
    assert tell(data) == (Kind.TAR,)
    assert whole(look(data)) == {leaked: [("a", 0, 1, 1)]}


@pytest.mark.parametrize("name", build.COMPRESS)
def test_a_compressed_file(look: Look, token: Token, name: str) -> None:
    leaked = token()
    packed = build.COMPRESS[name](f"one\ntwo {leaked}".encode() + b"\n" * 100_000)
    assert whole(look(packed)) == {leaked: [("content", 8, 2, 5)]}


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_streams_end_to_end_with_padding(look: Look, token: Token, name: str) -> None:
    one, two = token(), token()
    pack = build.COMPRESS[name]
    padding = b"\x51\x2a\x4d\x18\2\0\0\0ab" if name == "zstd" else bytes(8)
    data = pack(one.encode() + b"\n") + padding + pack(two.encode()) + padding
    assert whole(look(data)) == {
        one: [("content", 0, 1, 1)],
        two: [("content", len(one) + 1, 2, 1)],
    }
    if name == "zstd":
        assert len(whole(look(padding + data))) == 2


def test_nested(look: Look, token: Token) -> None:
    deep, beside = token(), token()
    jar = build.zipped({"a.class": b"\0" * 9 + deep.encode()})
    war = build.zipped({"lib/x.jar": jar, "web.xml": beside.encode()})
    data = build.COMPRESS["xz"](build.tarred({"app.war": war}))
    assert whole(look(data)) == {
        deep: [("app.war!lib/x.jar!a.class", 9, 1, 10)],
        beside: [("app.war!web.xml", 0, 1, 1)],
    }


def test_what_stands_as_it_is_is_found_once(look: Look, token: Token) -> None:
    leaked, beside = token(), token()
    inner = build.zipped({"a.txt": leaked.encode() + b"\n"}, zipfile.ZIP_STORED)
    data = build.tarred({"x.zip": inner, "b": beside.encode()})
    assert leaked.encode() in data
    assert whole(look(data)) == {
        leaked: [("x.zip!a.txt", 0, 1, 1)],
        beside: [("b", 0, 1, 1)],
    }


def test_around_members_the_raw_bytes_count(look: Look, token: Token) -> None:
    before, comment = token(), token()
    out = io.BytesIO()
    out.write(before.encode() + b"\n")
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("a", b"nothing")
        archive.comment = f"see {comment} ".encode()
    found = whole(look(out.getvalue()))
    assert [at[0][0] for at in found.values()] == ["", ""]
    assert set(found) == {before, comment}


def test_names_are_looked_at_and_once(look: Look, token: Token) -> None:
    named, content, linked = token(), token(), token()
    data = build.zipped({f"dir/{named}.txt": content.encode() + b"\n"})
    assert whole(look(data)) == {
        named: [(f"dir/{named}.txt", 4, 1, 5)],
        content: [(f"dir/{named}.txt", 0, 1, 1)],
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, f"../{linked}"
        archive.addfile(link)
    assert whole(look(out.getvalue())) == {linked: [("link", 3, 1, 4)]}


def test_hostile_names_are_only_names(look: Look, token: Token) -> None:
    leaked = token()
    for name in (
        b"/etc/passwd",
        b"..\\..\\x",
        b"../" * 400 + b"x",
        b"\xff\xfe",
        b"a\0b",
        b"\x1b[2J",
    ):
        data = build.zip_entry(name, leaked.encode(), method=0, size=len(leaked))
        ((where, *_),) = whole(look(data))[leaked]
        assert "\0" not in where
        assert len(where) <= 1_024
        if len(name) > 1_024:  # never a part of it: half a token is masked by nothing
            assert re.fullmatch(r"\(a path of [0-9]+ characters, [0-9a-f]{16}\)", where)
            continue
        assert where.encode("utf-8", "surrogateescape")[:2] in name.replace(b"\0", b"\xef\xbf\xbd")


def test_a_notebook(look: Look, token: Token) -> None:
    leaked = token()
    cell = '{"cells": [{"cell_type": "code", "source": ["import os\\n", "key = \\"%s\\"\\n"]}]}'
    assert list(whole(look((cell % leaked).encode()))) == [leaked]
    found = whole(look(build.zipped({"a.ipynb": (cell % leaked).encode()})))
    assert found[leaked][0][0] == "a.ipynb"


def test_two_formats_in_one_file(look: Look, token: Token) -> None:
    one, two = token(), token()
    data = build.COMPRESS["gzip"](one.encode()) + build.zipped({"b": two.encode()})
    assert tell(data) == (Kind.GZIP, Kind.ZIP)
    assert whole(look(data)) == {one: [("content", 0, 1, 1)], two: [("b", 0, 1, 1)]}


@pytest.mark.parametrize(
    "data",
    [b"", b"PK", b"PK is a name", b"BZh9 is not bzip2", b"\x1f\x8b", b"]\0\0\0\0", b"a" * 600,
     b"\0" * 5_000, b"x\x05" * 40_000, b"x" * 257 + b"ustar" + b" " * 300],
)  # fmt: skip
def test_what_is_no_archive_is_not_opened(look: Look, data: bytes) -> None:
    assert tell(data) == ()
    assert look(data) == Examined()


def test_bare_only_when_all_was_read(look: Look, token: Token) -> None:
    assert look(build.zipped({"a": b"nothing", "b": b"here"})).is_bare
    assert not look(build.zipped({"a": token().encode()})).is_bare
    cut = look(build.zipped({"a": b"nothing" * 99})[:-30])
    assert (cut.spots, cut.is_bare, cut.partial) == ((), False, ("archive-damaged: 1",))
    locked = look(build.zip_entry(b"a", b"packed", method=8, size=9, flags=1))
    assert (locked.is_bare, locked.partial) == (False, ("archive-member-encrypted: 1",))


def test_no_more_than_asked_for(look: Look, token: Token) -> None:
    data = build.zipped({str(n): token().encode() for n in range(9)})
    examined = look(data, most=4)
    assert (len(examined.spots), examined.dropped) == (4, 5)
    assert examined.partial == ("too-many-candidates: 5",)
    assert look(data, most=0).dropped == 9


def test_views_are_as_good_as_bytes(matcher: Matcher, token: Token) -> None:
    leaked = token()
    text = f" {leaked}\n".encode()
    archives = (build.zipped({"a": text}), build.tarred({"a": text}), build.COMPRESS["xz"](text))
    for data in (text, *archives, b"x" * 70_000 + archives[0], b"", b"x" * 70_000):
        buffer = bytearray(b"before") + data + b"after"
        with memoryview(buffer)[6 : 6 + len(data)] as view:
            assert examine(view, matcher, 9) == examine(data, matcher, 9)
            assert tell(view) == tell(data)


def test_a_token_in_a_name_that_is_too_long_is_never_shown_in_part(
    matcher: Matcher, look: Look, token: Token
) -> None:
    named, inside = token(), token()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d/" * 494 + named + ".txt", inside)
    examined = look(file.getvalue())
    found = [one for one in examined.spots if one.candidate.secret.reveal() == inside.encode()]
    assert found
    for one in found:
        shown = matcher.redact(one.path("outer.zip") or "")
        assert not any(named[at : at + 8] in shown for at in range(4, len(named) - 8))


def test_whom_a_zip_lies_to_makes_no_difference(look: Look, token: Token) -> None:
    """The directory may say another method than the member itself: either reader finds it."""
    planted = token()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", planted + "\n" + "x" * 200)
    data = bytearray(file.getvalue())
    directory = data.index(b"PK\1\2")
    data[directory + 10 : directory + 12] = b"\0\0"  # stored, it says
    examined = look(bytes(data))
    assert planted in places(examined)
    assert examined.partial
    assert not examined.is_bare
