"""Zip files: what their directory names, and what stands between and is not named in it.

The directory decides first. Local headers that no entry covers are read as well: of a file that was
cut, of an entry that was deleted, of a second zip file in front. Offsets and sizes are claims.
Source: PKWARE's APPNOTE 6.3.10.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from struct import Struct

from scanner.archives.bounds import DAMAGED, ENCRYPTED, UNKNOWN, Budget
from scanner.archives.kind import find_zip_end
from scanner.archives.member import Member, Slices, read_member, show
from scanner.archives.streams import METHODS, zipped

_DIRECTORY, _LOCAL, _END = b"PK\1\2", b"PK\3\4", b"PK\5\6"
_RECORD = re.compile(rb"PK(?:\x01\x02|\x03\x04|\x07\x08)")
_DIRECTORY_ENTRY = Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL_ENTRY = Struct("<4sHHHHHIIIHH")
_STORED = 0
_IS_ENCRYPTED, _HAS_END, _SIZE_FOLLOWS = 1, 2, 8  # flags; the second one is LZMA's
_WIDE = 0xFFFF_FFFF  # 64 bits of it stand in the extra field
_AES = 99
_NEWEST = 70  # version needed to extract, above every one there is
_MOST_NAME = 4_096
_EVERY_METHOD = METHODS | {_STORED, _AES, *range(1, 20), *range(94, 99)}


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    flags: int
    method: int
    start: int  # of the content
    end: int  # as claimed, within the data
    size: int  # unpacked, as claimed


def read_zip(data: bytes, budget: Budget) -> Iterator[Member]:
    """Yield the members of a zip file."""
    covered: list[tuple[int, int]] = []  # of the data: where what entries name begins and ends
    seen: set[tuple[int, int, int, int]] = set()  # the same, said in the same words
    starts: set[int] = set()
    end = find_zip_end(data)
    for entry in _named(data, end, budget, covered):
        if not budget.enter():
            return
        words = (entry.start, entry.end, entry.method, entry.flags & _IS_ENCRYPTED)
        if words in seen:  # named twice, read once
            yield Member(show(entry.name))
            continue
        seen.add(words)
        starts.add(entry.start)
        yield _member(data, entry, budget)
        if budget.left <= 0:
            return
    for entry in _unnamed(data, covered):
        if entry.start in starts:
            continue
        if not budget.enter():
            return
        yield _member(data, entry, budget)
        if budget.left <= 0:
            return


def _member(data: bytes, entry: _Entry, budget: Budget) -> Member:
    name = show(entry.name)
    if entry.flags & _IS_ENCRYPTED or entry.method == _AES:
        if entry.end > entry.start:
            budget.note(ENCRYPTED)
        return Member(name)
    if entry.method == _STORED:
        content = read_member(Slices(data, budget, entry.start, entry.end), budget)
        return Member(name, content, entry.start)
    if entry.method not in METHODS:
        budget.note(UNKNOWN)
        return Member(name)
    # Where it ends, the stream knows better than whoever wrote its size.
    rest = memoryview(data)[entry.start :]
    size = None if entry.flags & (_SIZE_FOLLOWS | _HAS_END) else entry.size
    stream = zipped(entry.method, rest, budget, entry.end - entry.start, size)
    return Member(name, read_member(stream, budget))


def _named(
    data: bytes, end: int, budget: Budget, covered: list[tuple[int, int]]
) -> Iterator[_Entry]:
    """Yield what the directory names and add to `covered` where it is."""
    if end < 0:
        if data[:4] != _END:  # that is an empty one
            budget.note(DAMAGED)
        return
    at, shift = _directory(data, end)
    most = at  # members end before the directory
    covered.append((at, len(data)))
    while data[at : at + 4] == _DIRECTORY and at + _DIRECTORY_ENTRY.size <= len(data):
        (_, _, _, flags, method, _, _, _, packed, unpacked, name_size, extra_size, comment_size,
         _, _, _, offset) = _DIRECTORY_ENTRY.unpack_from(data, at)  # fmt: skip
        at += _DIRECTORY_ENTRY.size
        name = data[at : at + min(name_size, _MOST_NAME)]
        at += name_size
        if _WIDE in (unpacked, packed, offset):
            unpacked, packed, offset = _wide(data[at : at + extra_size], unpacked, packed, offset)
        at += extra_size + comment_size
        local = _local(data, offset + shift)
        if local is None:
            budget.note(DAMAGED)
            yield _Entry(name, 0, _STORED, 0, 0, 0)
            continue
        if local.start + packed > most:
            budget.note(DAMAGED)
        stop = max(local.start, min(local.start + packed, most))
        covered.append((offset + shift, stop))
        yield _Entry(name, flags, method, local.start, stop, unpacked)
        if (local.method, local.flags & _IS_ENCRYPTED) != (method, flags & _IS_ENCRYPTED):
            # Whom to believe depends on the reader, so it is read both ways.
            budget.note(DAMAGED)
            yield _Entry(name, local.flags, local.method, local.start, stop, unpacked)


def _directory(data: bytes, end: int) -> tuple[int, int]:
    """Return where the directory is, and by how much all offsets are off: a zip file may stand
    behind something else."""
    size, offset = (int.from_bytes(data[end + n : end + n + 4], "little") for n in (12, 16))
    behind = end
    if data[end - 20 : end - 16] == b"PK\6\7":
        behind = data.rfind(b"PK\6\6", 0, end - 20)
        if behind >= 0:
            size, offset = (
                int.from_bytes(data[behind + n : behind + n + 8], "little") for n in (40, 48)
            )
        else:
            behind = end
    at = behind - size
    if at < 0 or data[at : at + 4] != _DIRECTORY:
        at = offset if offset < end else end
    return at, at - offset if offset <= at else 0


def _wide(extra: bytes, *fields: int) -> list[int]:
    """Return both sizes and the offset with what the 64-bit extra field says of them."""
    told = list(fields)
    at = 0
    while at + 4 <= len(extra):
        tag, size = (int.from_bytes(extra[at + n : at + n + 2], "little") for n in (0, 2))
        if tag == 1:
            at += 4
            end = min(at + size, len(extra))
            for index, field in enumerate(fields):
                if field == _WIDE and at + 8 <= end:
                    told[index] = int.from_bytes(extra[at : at + 8], "little")
                    at += 8
            break
        at += 4 + size
    return told


def _local(data: bytes, at: int) -> _Entry | None:
    """Return what the local header at `at` says, if there is one; its end is a claim."""
    if at < 0 or at + _LOCAL_ENTRY.size > len(data):
        return None
    (magic, version, flags, method, _, _, _, packed, size, name_size, extra_size) = (
        _LOCAL_ENTRY.unpack_from(data, at)
    )
    if magic != _LOCAL or version & 0xFF > _NEWEST:
        return None
    at += _LOCAL_ENTRY.size
    start = at + name_size + extra_size
    if start > len(data):
        return None
    if _WIDE in (size, packed):
        size, packed = _wide(data[at + name_size : start], size, packed)
    name = data[at : at + min(name_size, _MOST_NAME)]
    return _Entry(name, flags, method, start, start + packed, size)


def _unnamed(data: bytes, covered: list[tuple[int, int]]) -> Iterator[_Entry]:
    """Yield what local headers outside `covered` say."""
    covered.sort()
    ends: list[int] = []
    for _, stop in covered:  # the furthest that anything reaches which begins so early
        ends.append(max(stop, ends[-1] if ends else 0))
    begins = [begin for begin, _ in covered]
    at = 0
    while (at := data.find(_LOCAL, at)) >= 0:
        before = bisect_right(begins, at) - 1
        if before >= 0 and at < ends[before]:
            at = ends[before]
            continue
        entry = _local(data, at)
        if entry is None or not entry.name or entry.method not in _EVERY_METHOD:
            at += 4
            continue
        stop = entry.end
        if entry.flags & _SIZE_FOLLOWS and stop == entry.start:
            stop = _next(data, entry.start) if entry.method == _STORED else len(data)
            at = entry.start  # only its stream knows where it ends
        else:
            stop = min(stop, len(data))
            at = max(stop, entry.start)
        yield replace(entry, end=stop)


def _next(data: bytes, start: int) -> int:
    """Return where the next record begins, of whatever kind."""
    found = _RECORD.search(data, start)
    return len(data) if found is None else found.start()
