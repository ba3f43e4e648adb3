"""Tar files, read once from front to back: POSIX ustar and pax, GNU, and what came before them.

Links and devices are names without content. What belongs to no entry, as after damage or behind
the end, is a member of its own, so that it is matched too.
Sources: POSIX.1-2017 pax, the GNU tar manual, tar(5).
"""

from __future__ import annotations

from collections.abc import Iterator

from scanner.archives.bounds import DAMAGED, HEADER_TOO_LARGE, Budget
from scanner.archives.kind import BLOCK, is_tar_header
from scanner.archives.member import Member, Reads, read_member, show

_MOST_HEADER = 1 << 20  # bytes of a pax header or a long name
_AHEAD = 1 << 16  # bytes that are read at once: a decompressor dislikes small steps
_MOST_SIZE = 1 << 62
_ZEROS = bytes(BLOCK)
_LOOSE = "content"  # the name of what has none
_LINKS = b"12"
_NO_CONTENT = b"123456"  # links, devices, folders, pipes: size is 0, or means something else
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _SPARSE = b"L", b"K", b"x", b"g", b"S"


class _Source:
    """Blocks and contents out of a stream whose first bytes were read already."""

    def __init__(self, stream: Reads, first: bytes) -> None:
        self._stream = stream
        self._rest = first  # read, but not taken, from `_at` on
        self._at = 0
        self._left = 0
        self.position = 0

    def block(self) -> bytes:
        """Return the next block, shorter only at the end."""
        pieces = b""
        while len(pieces) < BLOCK and (piece := self._take(BLOCK - len(pieces))):
            pieces += piece
        return pieces

    def enter(self, size: int) -> None:
        """Stand before a content of `size` bytes."""
        self._left = size

    def read(self, most: int) -> bytes:
        """Return at most `most` bytes of the content."""
        piece = self._take(min(most, self._left))
        self._left -= len(piece)
        return piece

    def leave(self, size: int) -> bool:
        """Skip what is left of a content of `size` bytes, and its padding; False: it is cut."""
        self._left += -size % BLOCK
        while self._left and self.read(1 << 16):
            pass
        return not self._left

    def _take(self, most: int) -> bytes:
        if self._at == len(self._rest) and most > 0:
            self._at = 0
            self._rest = self._stream.read(max(most, _AHEAD))
        piece = self._rest[self._at : self._at + most]
        self._at += len(piece)
        self.position += len(piece)
        return piece


class _Next:
    """What headers of their own say of the entry that follows them."""

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.link: bytes | None = None
        self.size: int | None = None


def read_tar(stream: Reads, budget: Budget, first: bytes = b"", *, raw: bool) -> Iterator[Member]:
    """Yield the members of a tar file. `raw`: the stream is the archive, as it is in memory;
    `first`: what was read of it already."""
    source = _Source(stream, first)
    told = _Next()
    loose: list[bytes] = []
    loose_at, is_over = 0, False
    while True:
        at = source.position
        block = source.block()
        is_header = is_tar_header(block)
        if loose and (is_header or not block or len(loose) * BLOCK >= budget.member_bytes):
            if not is_over:
                budget.note(DAMAGED)
            yield Member(_LOOSE, b"".join(loose), loose_at if raw else None)
            loose.clear()
        if not block:
            return
        if not is_header:
            if block == _ZEROS and not loose:
                is_over = True
            else:
                loose_at = loose_at if loose else at
                loose.append(block)
            continue
        is_over = False
        if not budget.enter():
            return
        yield from _entry(source, at, block, told, budget, raw=raw)


def _entry(
    source: _Source, begin: int, block: bytes, told: _Next, budget: Budget, *, raw: bool
) -> Iterator[Member]:
    kind = block[156:157]
    size = _number(block[124:136])
    if size is None:
        budget.note(DAMAGED)
        return
    if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
        at = source.position
        source.enter(size)
        text = _header(source, budget)
        is_whole = source.leave(size)
        if kind == _LONG_NAME:
            told.name = text.rstrip(b"\0")
        elif kind == _LONG_LINK:
            told.link = text.rstrip(b"\0")
        else:
            if kind == _PAX:
                _read_pax(text, told)
            # A comment or an attribute can hold a token as well as a file can.
            yield Member("pax header", text, at if raw else None)
        if not is_whole:
            budget.note(DAMAGED)
        return
    name = _text(block[345:500]) + b"/" if _has_prefix(block) else b""
    name = name + _text(block[:100]) if told.name is None else told.name
    link, link_at = told.link, None
    if link is None:
        link, link_at = _text(block[157:257]), begin + 157
    size = size if told.size is None else told.size
    told.name = told.link = told.size = None
    if kind in _NO_CONTENT:
        # Some writers give links the size of what they mean; none of them adds its content.
        if kind in _LINKS:
            yield Member(show(name), link, link_at if raw else None)
        else:
            yield Member(show(name))
        return
    if kind == _SPARSE and block[482]:
        while len(more := source.block()) == BLOCK and more[504]:
            pass
    at = source.position
    source.enter(size)
    yield Member(show(name), read_member(source, budget), at if raw else None)
    if not source.leave(size):
        budget.note(DAMAGED)


def _has_prefix(block: bytes) -> bool:
    return block[257:263] == b"ustar\0" and block[345:346] != b"\0"


def _header(source: _Source, budget: Budget) -> bytes:
    pieces: list[bytes] = []
    left = _MOST_HEADER
    while left and (piece := source.read(left)):
        pieces.append(piece)
        left -= len(piece)
    if not left and source.read(1):
        budget.note(HEADER_TOO_LARGE)
    return b"".join(pieces)


def _read_pax(text: bytes, told: _Next) -> None:
    """Read the records "length key=value\\n" as far as they make sense."""
    at = 0
    while (space := text.find(b" ", at, at + 12)) > 0:
        digits = text[at:space]
        length = int(digits) if digits.isdigit() else 0
        if length <= space - at:
            return
        key, _, value = text[space + 1 : at + length - 1].partition(b"=")
        if key == b"path":
            told.name = value
        elif key == b"linkpath":
            told.link = value
        elif key == b"GNU.sparse.name":
            told.name = value
        elif key == b"size" and value.isdigit() and len(value) < 20:
            told.size = min(int(value), _MOST_SIZE)
        at += length


def _number(field: bytes) -> int | None:
    """Return what a size field says: octal, or base 256 for what is larger."""
    if field[0] == 0x80:
        return min(int.from_bytes(field[1:], "big"), _MOST_SIZE)
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
