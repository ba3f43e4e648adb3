"""Hostile archives: every bound holds, is reported, and what could be read was matched."""

from __future__ import annotations

import gzip
import lzma
import resource
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace

import pytest

from scanner.archives.bounds import REASONS, ArchiveBounds
from scanner.examine import Examined, examine
from scanner.matcher.engine import Matcher
from tests.archives import build

Token = Callable[[], str]
Look = Callable[..., Examined]
SMALL = ArchiveBounds(
    total_bytes=1 << 20, member_bytes=1 << 18, held_bytes=1 << 19, small_bytes=1 << 16, members=50
)
ZEROS = bytes(1 << 20)


@pytest.fixture
def look(matcher: Matcher) -> Look:
    def run(data: bytes, bounds: ArchiveBounds = SMALL, **changes: int) -> Examined:
        return examine(data, matcher, 1_000, replace(bounds, **changes))

    return run


def found(examined: Examined) -> list[str]:
    return [spot.candidate.secret.reveal().decode() for spot in examined.spots]


def test_reasons_are_the_ones_that_may_cross_from_the_child() -> None:
    assert all(len(reason) <= 40 and reason.replace("-", "").islower() for reason in REASONS)


def test_a_bomb_is_left_at_its_ratio(look: Look, token: Token) -> None:
    first = token()
    data = build.zipped({"a": first.encode(), "b": ZEROS, "c": ZEROS})
    examined = look(data, ratio=100, member_bytes=1 << 20)
    assert examined.partial == ("archive-ratio-too-high: 1",)
    assert examined.unpacked == (1 << 16) + 100 * len(data)
    assert found(examined) == [first]


def test_total_and_member(look: Look, token: Token) -> None:
    first, late, last = token(), token(), token()
    members = {"a": first.encode(), "b": ZEROS + late.encode(), "c": last.encode()}
    for data in (build.zipped(members), build.zipped(members, zipfile.ZIP_STORED),
                 gzip.compress(build.tarred(members))):  # fmt: skip
        one = look(data, total_bytes=1 << 30, ratio=10_000)
        assert one.partial == ("archive-member-too-large: 1",)
        assert found(one)[-2:] == [first, last]
        most = 1 << 19
        all_together = look(
            data, total_bytes=most, ratio=10_000, member_bytes=1 << 20, held_bytes=1 << 20
        )
        assert all_together.unpacked <= most
        assert "archive-too-large: 1" in all_together.partial
        assert first in found(all_together)


def test_nested_bombs(look: Look) -> None:
    data = build.zipped({str(n): ZEROS for n in range(16)})
    for _ in range(4):
        data = build.zipped({str(n): data for n in range(16)})
    examined = look(data)
    assert examined.unpacked <= (1 << 16) + 200 * len(data)
    assert examined.unpacked <= SMALL.total_bytes
    assert not {"archive-too-large", "archive-too-many-members"}.isdisjoint(examined.met)


def test_depth(look: Look, token: Token) -> None:
    leaked = token()
    data = build.zipped({"deep": leaked.encode()})
    for _ in range(7):
        data = build.zipped({"x": data})
    assert found(look(data, depth=8)) == [leaked]
    too_deep = look(data, depth=7)
    assert (found(too_deep), too_deep.partial) == ([], ("archive-too-deep: 1",))


def test_a_file_that_holds_itself_ends(look: Look) -> None:
    # A header that names its own beginning as its content, stored: every level holds the next.
    data = bytearray(build.zip_entry(b"a", b"", method=0))
    at = data.index(b"PK\1\2")
    data[at + 20 : at + 28] = struct.pack("<2I", len(data), len(data))
    examined = look(bytes(data))
    assert examined.unpacked <= len(data) * 8
    assert set(examined.met) == {"archive-damaged"}


def _quote(local: bytes) -> bytes:
    """A stored deflate block: a stream that began before `local` goes on after it."""
    return struct.pack("<BHH", 0, len(local), len(local) ^ 0xFFFF) + local


def test_entries_that_overlap(look: Look, token: Token) -> None:
    leaked = token()
    packed = build.deflated(b"\n" + leaked.encode() + ZEROS)
    count = 40
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, 0, 0, 1, 0) + b"a"
    body = local + _quote(local) * count + packed
    step = len(local) + 5
    directory = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(packed), 1 << 20, 1,
                    0, 0, 0, 0, 0, n * step) + b"a"
        for n in range(count)
    )  # fmt: skip
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    examined = look(body + directory + end, total_bytes=1 << 30, members=1_000, depth=1)
    assert leaked in found(examined)
    assert examined.unpacked <= (1 << 16) + 200 * len(body + directory + end)
    assert not {"archive-ratio-too-high", "archive-overlapping"}.isdisjoint(examined.met)


def test_streams_that_take_and_never_give(look: Look) -> None:
    empty = b"\0\0\0\xff\xff" * 200_000  # blocks of nothing
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 8, 8, 0, 0, 0, 0, 0, 1, 0) + b"a"
    examined = look(local + _quote(local) * 30 + empty, depth=1)
    assert examined.met["archive-overlapping"] == 1


def test_sizes_are_claims(look: Look, token: Token) -> None:
    leaked = token()
    text = b"x" * 5_000 + b" " + leaked.encode()
    packed = build.deflated(text)
    for claimed, size in ((0, 0), (1, 1), (len(packed), 0), (0xFFFFFFF0, 0xFFFFFFF0)):
        data = build.zip_entry(b"a", packed, method=8, claimed=claimed, size=size)
        assert found(look(data)) == [leaked], (claimed, size)
    stored = look(build.zip_entry(b"a", text, method=0, claimed=0xFFFFFFF0, size=0xFFFFFFF0))
    assert (found(stored), stored.partial) == ([leaked], ("archive-damaged: 1",))


def test_encrypted_members_leave_their_neighbours(look: Look, token: Token) -> None:
    leaked = token()
    locked = build.zip_entry(b"locked", b"abcdefgh", method=8, flags=1, size=3)
    data = locked[: locked.index(b"PK\1\2")] + build.zipped({"open": leaked.encode()})
    examined = look(data)
    assert found(examined) == [leaked]
    assert examined.partial == ("archive-member-encrypted: 1",)


@pytest.mark.parametrize("name", [*build.COMPRESS, "tar", "zip", "tar.gz"])
def test_a_cut_archive_is_read_up_to_the_cut(look: Look, token: Token, name: str) -> None:
    leaked = token()
    noise = bytes(n * n % 251 for n in range(100_000))
    members = {"a": leaked.encode() + b"\n", "b": noise}
    data = {
        "tar": lambda: build.tarred(members),
        "zip": lambda: build.zipped(members),
        "tar.gz": lambda: gzip.compress(build.tarred(members)),
    }.get(name, lambda: build.COMPRESS[name](b"\n".join(members.values())))()
    if name in ("bzip2", "zstd", "lzma", "xz"):
        data = data[: len(data) - 5]  # one block: cut at its end
    else:
        data = data[: len(data) * 3 // 4]
    examined = look(data, ratio=10_000)
    assert found(examined) == [leaked] or (name in ("bzip2", "zstd"))
    assert examined.met["archive-damaged"] >= 1
    assert not examined.is_bare


def test_a_deleted_entry_is_still_there(look: Look, token: Token) -> None:
    old, new = token(), token()
    first = build.zipped({"a": old.encode()})
    data = first[: first.index(b"PK\1\2")] + build.zipped({"a": new.encode()})
    examined = look(data)
    assert sorted(found(examined)) == sorted([old, new])
    assert examined.partial == ()


def test_memory_a_stream_may_ask_for(look: Look) -> None:
    huge = bytearray(lzma.compress(b"x" * 999, lzma.FORMAT_ALONE))
    huge[1:5] = (1 << 30).to_bytes(4, "little")
    assert look(bytes(huge)).partial == ("archive-needs-memory: 1",)
    # A zstd frame without a single segment; its window descriptor asks for 2 GiB.
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\x01\x00\x00"
    assert look(frame).partial == ("archive-needs-memory: 1",)
    usual = lzma.compress(b"x" * 999, preset=9)
    assert look(usual).partial == ()


def test_very_many_members_and_streams(look: Look, token: Token) -> None:
    leaked = token()
    many = {"a": leaked.encode(), **{str(n): b"" for n in range(60)}}
    for data in (build.zipped(many), build.tarred(many), gzip.compress(build.tarred(many))):
        examined = look(data)
        assert (found(examined), examined.partial) == ([leaked], ("archive-too-many-members: 1",))
    streams = gzip.compress(leaked.encode()) + gzip.compress(b"") * 60
    assert found(look(streams)) == [leaked]
    assert look(streams).partial == ("archive-too-many-members: 1",)


def test_tar_headers_of_ill_will(look: Look, token: Token) -> None:
    leaked = token()
    after = build.tarred({"after": leaked.encode()})
    size = b"%011o\0"
    cases = {
        "a device with a size": build.tar_block(b"d", size % 9_999, b"3"),
        "a folder with a size": build.tar_block(b"d", size % 9_999, b"5"),
        "no number": build.tar_block(b"d", b"99999999999\0"),
        "a link": build.tar_block(b"d", size % 9_999, b"2", b"/etc/shadow"),
        "negative": build.tar_block(b"d", b"\xff" * 12),
        "sparse": build.tar_block(b"d", size % 0, b"S"),
        "pax nonsense": build.tar_block(b"d", size % 512, b"x") + b"999999999999 a=b\n".ljust(512),
        "pax zeros": build.tar_block(b"d", size % 512, b"x") + b"0 a=b\n".ljust(512, b"0"),
        "global": build.tar_block(b"d", size % 512, b"g") + b"13 path=/x/y\n".ljust(512, b"\0"),
        "junk between": b"junk".ljust(1_024, b"k"),
    }
    for name, head in cases.items():
        data = build.tarred({"before": b"x"})[:1_024] + head + after
        for packed in (data, gzip.compress(data)):
            examined = look(packed)
            assert found(examined) == [leaked], name
            assert examined.spots[0].member == "after", name


def test_huge_tar_claims_and_headers(look: Look, token: Token) -> None:
    leaked, hidden = token(), token()
    huge = build.tar_block(b"a", b"\x80" + b"\xff" * 11) + leaked.encode().ljust(512, b"\0")
    examined = look(huge)
    assert (found(examined), examined.partial) == ([leaked], ("archive-damaged: 1",))
    comment = b"%d comment=%s\n" % (99, hidden.encode())
    pax = build.tar_block(b"p", b"%011o\0" % len(comment), b"x") + comment.ljust(512, b"\0")
    assert found(look(gzip.compress(pax + build.tarred({"a": b"x"})))) == [hidden]
    bomb = build.tar_block(b"p", b"%011o\0" % (3 << 20), b"x") + bytes(3 << 20)
    after = build.tarred({"a": leaked.encode()})
    examined = look(gzip.compress(bomb + after), total_bytes=1 << 24, ratio=10_000)
    assert found(examined) == [leaked]
    assert examined.partial == ("archive-header-too-large: 1",)


def test_what_stands_behind_the_end_of_a_tar_file(look: Look, token: Token) -> None:
    loose, second = token(), token()
    tail = bytes(10_240) + f" {loose} ".encode().ljust(700) + bytes(324)
    data = build.tarred({"a": b"x"}) + tail + build.tarred({"b": second.encode()})
    examined = look(gzip.compress(data))
    assert found(examined) == [loose, second]
    assert [spot.member for spot in examined.spots] == ["content", "b"]
    assert examined.partial == ()


def test_memory_in_all(matcher: Matcher) -> None:
    """A large archive is never held unpacked: 400 MB go through a fraction of it."""
    data = gzip.compress(
        build.tarred({str(n): bytes(40 << 20) for n in range(10)}, tarfile.GNU_FORMAT), 1
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bounds = ArchiveBounds(ratio=10_000)
    examined = examine(data, matcher, 1_000, bounds)
    assert examined.is_bare
    assert examined.unpacked > 400 << 20
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) << 10 < 200 << 20


def test_very_many_small_members_are_no_bomb(matcher: Matcher) -> None:
    noise = (bytes((n * n + m) % 251 for m in range(300)) for n in range(5_000))
    members = {f"{n}.txt": one for n, one in enumerate(noise)}
    for method in build.ZIP_METHODS.values():
        data = build.zipped(members, method)
        assert examine(data, matcher, 9).partial == ()
