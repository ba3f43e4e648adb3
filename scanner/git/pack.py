"""Reading a pack, pure: every object with its kind, its bytes and the id we computed of them.

Source: gitformat-pack(5). The bytes are hostile: sizes are checked while inflating, chains and
totals are bounded; what breaks the format is a `MalformedPackError`, a bound is named in `partial`.

Two passes. The first inflates every entry once, in pack order, and yields the whole objects. The
second walks each delta family depth-first from its base, so that a base is dropped after its last
child; what did not fit into the cache is built again from its ancestors, without recursion.
Inflating is most of the work, so it is isal's: 1.7 times as fast as zlib here.
"""

from __future__ import annotations

import hashlib
import mmap
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isal import isal_zlib

from scanner.errors import MalformedPackError
from scanner.git.delta import apply_delta, target_size
from scanner.git.faults import Fault
from scanner.model import ObjectKind

if TYPE_CHECKING:
    from _hashlib import HASH

Buffer = bytes | bytearray | memoryview | mmap.mmap

_KINDS = {1: ObjectKind.COMMIT, 2: ObjectKind.TREE, 3: ObjectKind.BLOB, 4: ObjectKind.TAG}
_OFS_DELTA, _REF_DELTA = 6, 7
_WHOLE, _UNKNOWN, _NONE = -1, -2, -1
_HEADER = 12
_SMALLEST_ENTRY = 9  # bytes: one of header, eight of an empty zlib stream
_CHUNK = 1 << 16
_PIECE = 1 << 20
_InflateError: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # so says its stub
_REWORK = 4  # times `total_bytes` that building again may cost when the cache is too small
_TOO_LARGE = "object-too-large"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a pack may cost. Sizes in bytes, inflated."""

    objects: int = 2_000_000
    object_bytes: int = 128 << 20  # larger objects are skipped
    total_bytes: int = 8 << 30
    found: int = 20_000  # candidates; further ones are counted
    depth: int = 4_096  # deltas from an object to its base
    cache_bytes: int = 256 << 20
    unpacked_bytes: int = 1 << 30  # out of all archives among the objects


@dataclass(frozen=True, slots=True)
class GitObject:
    """One object; `data` is None when it was larger than a bound, and so may be its id ("")."""

    id: str
    kind: ObjectKind
    data: bytes | None


class _ExhaustedError(Exception):
    """The pack's total is spent; never leaves this module."""


class PackReader:
    """Reads one pack, once. The frame (header, checksum) is verified on construction."""

    def __init__(self, pack: Buffer, bounds: Bounds, hash_size: int = 20) -> None:
        self._pack = memoryview(pack)
        self._bounds = bounds
        self._hash_size = hash_size
        self._new_hash = hashlib.sha256 if hash_size == 32 else hashlib.sha1
        self._spent = 0
        self._reworked = 0
        self._skipped: dict[int, str] = {}  # row -> the bound that forbids its content
        self._numbers, self._ids = bytearray(), bytearray()
        self._bounds_met: Counter[str] = Counter()
        # One row an entry: where it starts, where its zlib stream starts, its claimed size, the row
        # of its base, and its children as a linked list. Arrays, for packs of millions.
        self._start, self._data_at, self._size = array("Q"), array("Q"), array("Q")
        self._base, self._child, self._sibling = array("q"), array("q"), array("q")
        self._by_ref: dict[bytes, list[int]] = {}
        self._cache: dict[int, bytes] = {}
        self._cached = 0
        self._last: tuple[int, bytes] = (_NONE, b"")
        try:
            self._check_frame()
        except MalformedPackError:
            self.close()
            raise

    @property
    def partial(self) -> tuple[str, ...]:
        """The bounds that were met, e.g. "object-too-large: 2"; whole after `objects`."""
        return tuple(f"{reason}: {count}" for reason, count in sorted(self._bounds_met.items()))

    def close(self) -> None:
        """Let go of the buffer, so that a mapping can be closed."""
        self._pack.release()

    def objects(self) -> Iterator[GitObject]:
        """Yield every object: whole ones in pack order, then those made by deltas."""
        try:
            yield from self._whole()
            yield from self._families()
        except _ExhaustedError:
            self._bounds_met["pack-too-large"] = self._bounds.total_bytes
            return
        if self._by_ref:
            unresolved = sum(len(rows) for rows in self._by_ref.values())
            if not self._bounds_met:
                raise MalformedPackError(Fault.BASE)
            # Their base may be an object that a bound made us skip.
            self._bounds_met[_TOO_LARGE] += unresolved

    def _check_frame(self) -> None:
        pack = self._pack
        if len(pack) < _HEADER + self._hash_size or bytes(pack[:4]) != b"PACK":
            raise MalformedPackError(Fault.NOT_A_PACK)
        if int.from_bytes(pack[4:8], "big") not in (2, 3):
            raise MalformedPackError(Fault.VERSION)
        self._count = int.from_bytes(pack[8:12], "big")
        self._end = len(pack) - self._hash_size
        if self._count * _SMALLEST_ENTRY > self._end - _HEADER:
            raise MalformedPackError(Fault.COUNT)
        with pack[: self._end] as body:
            if self._new_hash(body).digest() != bytes(pack[self._end :]):
                raise MalformedPackError(Fault.CHECKSUM)

    # The first pass: inflate in pack order.

    def _whole(self) -> Iterator[GitObject]:
        position = _HEADER
        for row in range(min(self._count, self._bounds.objects)):
            number, size = self._read_header(row, position)
            too_large = size > self._bounds.object_bytes
            raw_id = bytes(self._hash_size)
            if number in _KINDS:
                kind = _KINDS[number]
                digest = self._new_hash(b"%s %d\0" % (kind.value.encode(), size))
                if too_large:
                    position = self._skip(row, digest)
                    self._skipped[row] = _TOO_LARGE
                    self._bounds_met[_TOO_LARGE] += 1
                    item = GitObject(digest.hexdigest(), kind, None)
                else:
                    self._spend(size)
                    data, position = self._inflate(row)
                    digest.update(data)
                    self._keep(row, data)
                    item = GitObject(digest.hexdigest(), kind, data)
                yield item
                raw_id = digest.digest()
            elif too_large:
                position = self._skip(row, None)
            else:
                self._spend(size)
                data, position = self._inflate(row)
                self._keep(~row, data)
            self._ids += raw_id
        if self._count > self._bounds.objects:
            self._bounds_met["too-many-objects"] = self._count
        elif position != self._end:
            raise MalformedPackError(Fault.TRAILING)

    def _read_header(self, row: int, start: int) -> tuple[int, int]:
        """Record one entry; returns (its kind's number, its claimed size)."""
        byte, position = self._byte(start)
        number, size, shift = (byte >> 4) & 7, byte & 15, 4
        while byte & 0x80:
            byte, position = self._byte(position)
            size |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise MalformedPackError(Fault.SIZE)
        base = _WHOLE
        if number == _REF_DELTA:
            raw = bytes(self._pack[position : position + self._hash_size])
            position += self._hash_size
            self._by_ref.setdefault(raw, []).append(row)
            base = _UNKNOWN
        elif number == _OFS_DELTA:
            distance, position = self._distance(position)
            base = bisect_left(self._start, start - distance) if distance <= start else row
            if base >= row or self._start[base] != start - distance:
                raise MalformedPackError(Fault.BASE)
        elif number not in _KINDS:
            raise MalformedPackError(Fault.KIND)
        self._numbers.append(number)
        self._start.append(start)
        self._data_at.append(position)
        self._size.append(size)
        self._base.append(base)
        self._child.append(_NONE)
        self._sibling.append(self._child[base] if base >= 0 else _NONE)
        if base >= 0:
            self._child[base] = row
        return number, size

    def _distance(self, position: int) -> tuple[int, int]:
        byte, position = self._byte(position)
        distance = byte & 0x7F
        while byte & 0x80:
            byte, position = self._byte(position)
            distance = ((distance + 1) << 7) | (byte & 0x7F)
            if distance > self._end:
                raise MalformedPackError(Fault.BASE)
        return distance, position

    def _byte(self, position: int) -> tuple[int, int]:
        if position >= self._end:
            raise MalformedPackError(Fault.CUT)
        return self._pack[position], position + 1

    def _inflate(self, row: int) -> tuple[bytes, int]:
        """Return the entry's content, of exactly its claimed size, and where its stream ends."""
        size, start = self._size[row], self._data_at[row]
        # Enough for what deflate makes of that size at worst: most entries need one call, and no
        # call copies more than its own tail.
        position = min(start + size + (size >> 8) + 64, self._end)
        inflater = isal_zlib.decompressobj()
        try:
            data = inflater.decompress(self._pack[start:position], size + 1)
            if not inflater.eof and len(data) <= size:
                pieces, made = [data], len(data)
                while not inflater.eof and made <= size:
                    pending: bytes | memoryview = inflater.unconsumed_tail
                    if not pending:
                        pending = self._pack[position : min(position + _CHUNK, self._end)]
                        position += len(pending)
                        if not pending:
                            raise MalformedPackError(Fault.CUT)
                    piece = inflater.decompress(pending, size + 1 - made)
                    made += len(piece)
                    pieces.append(piece)
                data = b"".join(pieces)
        except _InflateError:
            raise MalformedPackError(Fault.INFLATE) from None
        if len(data) != size:
            raise MalformedPackError(Fault.LARGER if len(data) > size else Fault.SMALLER)
        return data, position - len(inflater.unused_data)

    def _skip(self, row: int, digest: HASH | None) -> int:
        """Inflate without keeping, into `digest` where one is given; returns where it ends."""
        size, position, made = self._size[row], self._data_at[row], 0
        inflater = isal_zlib.decompressobj()
        try:
            while not inflater.eof:
                pending: bytes | memoryview = inflater.unconsumed_tail
                if not pending:
                    pending = self._pack[position : min(position + _CHUNK, self._end)]
                    position += len(pending)
                    if not pending:
                        raise MalformedPackError(Fault.CUT)
                piece = inflater.decompress(pending, _PIECE)
                made += len(piece)
                self._spend(len(piece))
                if made > size:
                    raise MalformedPackError(Fault.LARGER)
                if digest is not None:
                    digest.update(piece)
        except _InflateError:
            raise MalformedPackError(Fault.INFLATE) from None
        if made != size:
            raise MalformedPackError(Fault.SMALLER)
        return position - len(inflater.unused_data)

    # The second pass: deltas, family by family.

    def _families(self) -> Iterator[GitObject]:
        roots = [row for row, base in enumerate(self._base) if base == _WHOLE]
        if self._by_ref:
            for row in roots:
                at = row * self._hash_size
                self._adopt(row, bytes(self._ids[at : at + self._hash_size]))
        for row in roots:
            if self._child[row] == _NONE:
                self._drop(row)
        for row in roots:
            if self._child[row] != _NONE:
                yield from self._family(row, _KINDS[self._numbers[row]])

    def _family(self, root: int, kind: ObjectKind) -> Iterator[GitObject]:
        stack = [(child, 1) for child in self._children(root)]
        left = {root: len(stack)}  # children of a base that are still to come
        while stack:
            row, depth = stack.pop()
            base = self._base[row]
            data = self._make(row, base, depth)
            left[base] -= 1
            if not left[base]:
                del left[base]
                self._drop(base)
            if data is None:
                yield GitObject("", kind, None)
            else:
                digest = self._new_hash(b"%s %d\0" % (kind.value.encode(), len(data)))
                digest.update(data)
                raw_id = digest.digest()
                yield GitObject(raw_id.hex(), kind, data)
                self._adopt(row, raw_id)
            children = self._children(row)
            if children:
                left[row] = len(children)
                stack += [(child, depth + 1) for child in children]
                if data is not None:
                    self._keep(row, data)
            else:
                self._drop(~row)

    def _make(self, row: int, base: int, depth: int) -> bytes | None:
        """Return the object that a delta makes; None when a bound forbids it, then its children
        are skipped as well."""
        reason = self._skipped.get(base)
        if reason is None and depth > self._bounds.depth:
            reason = "delta-chain-too-long"
        if reason is None and self._size[row] > self._bounds.object_bytes:
            reason = _TOO_LARGE
        if reason is None:
            source, delta = self._content(base), self._delta(row)
            size, _ = target_size(delta, len(source))
            if size <= self._bounds.object_bytes:
                self._spend(size)
                data = apply_delta(source, delta)
                self._last = (row, data)
                return data
            reason = _TOO_LARGE
        self._skipped[row] = reason
        self._bounds_met[reason] += 1
        return None

    def _content(self, row: int) -> bytes:
        """Return a base's content: from the cache, or built again from its nearest ancestor."""
        chain: list[int] = []
        at = row
        while (data := self._known(at)) is None:
            if self._base[at] == _WHOLE:
                self._rework(self._size[at])
                data = self._inflate(at)[0]
                break
            chain.append(at)
            at = self._base[at]
        for step in reversed(chain):
            data = apply_delta(data, self._delta(step))
            self._rework(len(data))
        self._last = (row, data)
        return data

    def _known(self, row: int) -> bytes | None:
        return self._last[1] if self._last[0] == row else self._cache.get(row)

    def _delta(self, row: int) -> bytes:
        data = self._cache.get(~row)
        if data is None:
            self._rework(self._size[row])
            data = self._inflate(row)[0]
        return data

    def _adopt(self, row: int, raw_id: bytes) -> None:
        """Link the deltas that named their base by this id."""
        for child in self._by_ref.pop(raw_id, ()):
            self._base[child] = row
            self._sibling[child] = self._child[row]
            self._child[row] = child

    def _children(self, row: int) -> list[int]:
        found: list[int] = []
        child = self._child[row]
        while child != _NONE:
            found.append(child)
            child = self._sibling[child]
        return found

    def _keep(self, key: int, data: bytes) -> None:
        if self._cached + len(data) <= self._bounds.cache_bytes:
            self._cache[key] = data
            self._cached += len(data)

    def _drop(self, key: int) -> None:
        data = self._cache.pop(key, None)
        if data is not None:
            self._cached -= len(data)

    def _spend(self, size: int) -> None:
        self._spent += size
        if self._spent > self._bounds.total_bytes:
            raise _ExhaustedError

    def _rework(self, size: int) -> None:
        self._reworked += size
        if self._reworked > _REWORK * self._bounds.total_bytes:
            raise _ExhaustedError
