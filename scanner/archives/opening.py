"""One level of an archive: its members, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from scanner.archives.bounds import Budget
from scanner.archives.kind import BLOCK, Kind, is_tar_header
from scanner.archives.member import Member, Reads, Slices, read_member
from scanner.archives.streams import stream_of
from scanner.archives.tar import read_tar
from scanner.archives.zipfiles import read_zip

_CONTENT = "content"  # what a compressed file holds has no name but the file's


def open_archive(data: bytes, kind: Kind, budget: Budget) -> Iterator[Member]:
    """Yield the members of an archive. A compressed tar file is one archive, not two.

    Every bound that is met, and all that is damaged, is counted in the budget; nothing is raised.
    """
    if kind is Kind.ZIP:
        yield from read_zip(data, budget)
    elif kind is Kind.TAR:
        yield from read_tar(Slices(data, budget), budget, raw=True)
    elif budget.enter():
        budget.opened(1)
        try:
            yield from _decompressed(stream_of(kind, data, budget), budget)
        finally:
            budget.opened(-1)


def _decompressed(stream: Reads, budget: Budget) -> Iterator[Member]:
    first = b""
    while len(first) < BLOCK and (piece := stream.read(BLOCK - len(first))):
        first += piece
    if is_tar_header(first):
        yield from read_tar(stream, budget, first, raw=False)
        return
    yield Member(_CONTENT, read_member(_Begun(first, stream), budget))


class _Begun:
    """A stream whose first bytes were read already."""

    def __init__(self, first: bytes, stream: Reads) -> None:
        self._first = first
        self._stream = stream

    def read(self, most: int) -> bytes:
        if self._first:
            piece, self._first = self._first[:most], self._first[most:]
            return piece
        return self._stream.read(most)
