"""Compressed streams, read in bounded pieces. No size that a stream claims is ever believed."""

from __future__ import annotations

import bz2
import lzma
import sys
from collections.abc import Callable
from typing import Protocol

from isal import igzip_lib

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from scanner.archives.bounds import DAMAGED, NEEDS_MEMORY, Budget
from scanner.archives.kind import Kind

PIECE = 1 << 20  # bytes that come out at once, at most
_FED = 1 << 16  # bytes that go in at once
_FED_LEAST = 1 << 9
LZMA = 14  # the method of a zip member
_LZMA_HEAD = 9  # bytes before the stream, in a zip file: version, size of properties, properties
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_INFLATE_ERROR: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # so says its stub
_ERRORS = (_INFLATE_ERROR, lzma.LZMAError, zstd.ZstdError, OSError, EOFError, ValueError)


class Decompressor(Protocol):
    """What the standard library's decompressors have in common."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out before something goes in."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What went in after the stream's end."""
        ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Take more, and return at most `max_length` bytes."""
        ...


def _deflate(_memory: int) -> Decompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)


def _zstd(memory: int) -> Decompressor:
    window = min(27, memory.bit_length() - 1)
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window})


def _lzma(kind: int) -> Callable[[int], Decompressor]:
    return lambda memory: lzma.LZMADecompressor(kind, memlimit=memory)


_OF_KIND: dict[Kind, tuple[bytes, Callable[[int], Decompressor]]] = {
    Kind.GZIP: (b"\x1f\x8b\x08", lambda _: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)),
    Kind.BZIP2: (b"BZh", lambda _: bz2.BZ2Decompressor()),
    Kind.XZ: (b"\xfd7zXZ\0", _lzma(lzma.FORMAT_XZ)),
    Kind.LZMA: (b"", _lzma(lzma.FORMAT_ALONE)),
    Kind.ZSTD: (_ZSTD_MAGIC, _zstd),
}
# Numbers of APPNOTE 4.4.5; 9 (deflate64) and older ones nobody writes any more are not known.
_OF_METHOD: dict[int, Callable[[int], Decompressor]] = {
    8: _deflate,
    12: lambda _: bz2.BZ2Decompressor(),
    LZMA: _lzma(lzma.FORMAT_ALONE),
    93: _zstd,
    95: _lzma(lzma.FORMAT_XZ),
}
METHODS = frozenset(_OF_METHOD)


class Stream:
    """One compressed stream, or several end to end, that start with `magic`.

    What goes wrong is counted in the budget and ends the stream; what came before stays read.
    """

    def __init__(
        self,
        data: memoryview,
        new: Callable[[int], Decompressor],
        budget: Budget,
        *,
        head: bytes = b"",
        magic: bytes = b"",
        fed: int = _FED,
    ) -> None:
        self._data = data
        self._new = new
        self._budget = budget
        self._magic = magic
        self._head = head
        self._fed = fed  # bytes that go in first, as the stream seems to be so long
        self._position = 0
        self._one: Decompressor | None = None
        self._is_over = False

    def read(self, most: int) -> bytes:
        """Return at most `most` bytes, b"" at the end and at no other time."""
        while not self._is_over:
            allowed = min(most, PIECE, self._budget.left)
            if allowed <= 0:
                self._budget.exhaust()
                break
            try:
                piece = self._step(allowed)
            except (*_ERRORS, MemoryError) as error:
                wants = isinstance(error, MemoryError) or "emory" in str(error)
                self._budget.note(NEEDS_MEMORY if wants else DAMAGED)
                break
            if piece:
                self._budget.spend(len(piece))
                return piece
        self._is_over = True
        return b""

    def _step(self, most: int) -> bytes:
        one = self._one
        if one is None:
            self._one = one = self._new(self._budget.window_bytes)
        fed = b""
        if one.needs_input:
            fed = self._head or bytes(self._data[self._position : self._position + self._fed])
            self._fed = _FED
            if not fed:
                raise EOFError
            if not self._budget.feed(len(fed)):
                self._is_over = True
                return b""
            if self._head:
                self._head = b""
            else:
                self._position += len(fed)
        piece = one.decompress(fed, max_length=most)
        if one.eof:
            unused = len(one.unused_data)
            self._position -= unused
            self._budget.unfeed(unused)
            self._next()
        return piece

    def _next(self) -> None:
        """Go on with the stream that follows, if one does. Anything else after the end was seen
        where the raw bytes were matched."""
        self._one = None
        while self._peek(4) == b"\0\0\0\0":
            self._position += 4  # padding
        while self._magic == _ZSTD_MAGIC and self._skippable():
            size = int.from_bytes(self._data[self._position + 4 : self._position + 8], "little")
            self._position += 8 + size
        follows = self._magic and self._peek(len(self._magic)) == self._magic
        self._is_over = not follows or not self._budget.enter()

    def _skippable(self) -> bool:
        head = self._peek(4)
        return head[1:] == b"\x2a\x4d\x18" and head[0] >> 4 == 5

    def _peek(self, size: int) -> bytes:
        return bytes(self._data[self._position : self._position + size])


def stream_of(kind: Kind, data: bytes, budget: Budget) -> Stream:
    """Return what is in a file of a compressed kind."""
    magic, new = _OF_KIND[kind]
    return Stream(memoryview(data), new, budget, magic=magic)


def zipped(method: int, data: memoryview, budget: Budget, packed: int, size: int | None) -> Stream:
    """Return what is in a zip member that was compressed by one of `METHODS`. `packed` bytes it is
    said to be long; `size`: unpacked, if the stream does not say where it ends."""
    head = b""
    if method == LZMA:  # the same stream as a .lzma file, with another head
        shown = b"\xff" * 8 if size is None else size.to_bytes(8, "little")
        head, data = bytes(data[4:_LZMA_HEAD]) + shown, data[_LZMA_HEAD:]
    fed = min(max(packed, _FED_LEAST), _FED)
    return Stream(data, _OF_METHOD[method], budget, head=head, fed=fed)
