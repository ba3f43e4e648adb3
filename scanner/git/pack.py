"""Reading a pack, pure: every object with its kind, its bytes and the id we computed of them.

Source: gitformat-pack(5). The bytes are hostile: sizes are checked while inflating, chains and
totals are bounded, and whatever breaks the format is a `MalformedPackError`.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from scanner.errors import MalformedPackError
from scanner.model import ObjectKind

_KINDS = {1: ObjectKind.COMMIT, 2: ObjectKind.TREE, 3: ObjectKind.BLOB, 4: ObjectKind.TAG}
_OFS_DELTA, _REF_DELTA = 6, 7
_HEADER = 12


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a pack may cost. Meeting `object_bytes` skips that object; the rest are final."""

    objects: int = 2_000_000
    object_bytes: int = 128 << 20
    total_bytes: int = 4 << 30
    depth: int = 4_096


@dataclass(frozen=True, slots=True)
class GitObject:
    """One object; `data` is None when it was larger than the bound."""

    id: str
    kind: ObjectKind
    data: bytes | None


@dataclass(slots=True)
class _Entry:
    kind: int
    size: int
    data_at: int
    base: int | bytes | None  # offset or raw id of a delta's base


class PackReader:
    """Reads one pack. Bases are resolved without recursion, in the order of the pack."""

    def __init__(self, pack: bytes | memoryview, bounds: Bounds, hash_size: int = 20) -> None:
        self._pack = memoryview(pack)
        self._bounds = bounds
        self._hash_size = hash_size
        self._new_hash = hashlib.sha256 if hash_size == 32 else hashlib.sha1
        self._total = 0
        self._check_frame()

    def _check_frame(self) -> None:
        pack = self._pack
        if len(pack) < _HEADER + self._hash_size or bytes(pack[:4]) != b"PACK":
            raise MalformedPackError("The pack is cut off or not a pack.")
        if int.from_bytes(pack[4:8], "big") not in (2, 3):
            raise MalformedPackError("The pack has an unknown version.")
        self._count = int.from_bytes(pack[8:12], "big")
        if self._count > self._bounds.objects:
            raise MalformedPackError(f"The pack claims more than {self._bounds.objects} objects.")
        body, trailer = pack[: -self._hash_size], pack[-self._hash_size :]
        if self._new_hash(body).digest() != bytes(trailer):
            raise MalformedPackError("The pack's checksum is wrong.")
        self._end = len(body)

    def objects(self) -> Iterator[GitObject]:
        """Yield every object. Delta bases stay in memory until the pack is read."""
        whole: dict[int, tuple[ObjectKind, bytes | None, int]] = {}
        by_id: dict[bytes, int] = {}
        waiting: dict[int | bytes, list[tuple[int, _Entry, bytes | None]]] = {}
        position = _HEADER
        for _ in range(self._count):
            start = position
            entry = self._entry(position)
            data, position = self._inflate(entry)
            if entry.base is None:
                ready = [(start, _KINDS[entry.kind], data, 0)]
            else:
                base_at = entry.base if isinstance(entry.base, int) else by_id.get(entry.base)
                if base_at is None or base_at not in whole:
                    waiting.setdefault(entry.base, []).append((start, entry, data))
                    continue
                ready = [(start, *self._resolve(whole[base_at], data))]
            while ready:
                at, kind, content, depth = ready.pop()
                whole[at] = (kind, content, depth)
                raw_id = self._id(kind, content)
                if raw_id is not None:
                    by_id[raw_id] = at
                yield GitObject(raw_id.hex() if raw_id else "", kind, content)
                keys: tuple[int | bytes, ...] = (at,) if raw_id is None else (at, raw_id)
                for key in keys:
                    for child_at, _child, delta in waiting.pop(key, ()):
                        ready.append((child_at, *self._resolve(whole[at], delta)))
        if position != self._end:
            raise MalformedPackError("The pack has bytes after its last object.")
        if waiting:
            raise MalformedPackError("The pack has a delta without its base.")

    def _id(self, kind: ObjectKind, content: bytes | None) -> bytes | None:
        if content is None:
            return None
        header = b"%s %d\0" % (kind.value.encode(), len(content))
        digest = self._new_hash(header)
        digest.update(content)
        return digest.digest()

    def _entry(self, position: int) -> _Entry:
        first = position
        byte, position = self._byte(position)
        kind, size, shift = (byte >> 4) & 7, byte & 15, 4
        while byte & 0x80:
            byte, position = self._byte(position)
            size |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise MalformedPackError("The pack has an object of impossible size.")
        if kind in _KINDS:
            return _Entry(kind, size, position, None)
        if kind == _REF_DELTA:
            base = bytes(self._pack[position : position + self._hash_size])
            return _Entry(kind, size, position + self._hash_size, base)
        if kind != _OFS_DELTA:
            raise MalformedPackError("The pack has an object of unknown kind.")
        start = position
        byte, position = self._byte(position)
        distance = byte & 0x7F
        while byte & 0x80:
            byte, position = self._byte(position)
            distance = ((distance + 1) << 7) | (byte & 0x7F)
            if position - start > 10:
                raise MalformedPackError("The pack has a delta with an impossible base.")
        return _Entry(kind, size, position, first - distance)

    def _byte(self, position: int) -> tuple[int, int]:
        if position >= self._end:
            raise MalformedPackError("The pack ends inside an object.")
        return self._pack[position], position + 1

    def _inflate(self, entry: _Entry) -> tuple[bytes | None, int]:
        """Return the entry's content (None: over the bound) and where the next entry begins."""
        keep = entry.size <= self._bounds.object_bytes
        inflater = zlib.decompressobj()
        pieces: list[bytes] = []
        size, position = 0, entry.data_at
        pending: bytes | memoryview = b""
        try:
            while not inflater.eof:
                if not pending:
                    if position >= self._end:
                        raise MalformedPackError("The pack ends inside an object.")
                    pending = self._pack[position : min(position + 65_536, self._end)]
                    position += len(pending)
                piece = inflater.decompress(pending, 1 << 20)
                pending = inflater.unconsumed_tail
                size += len(piece)
                self._spend(len(piece))
                if size > entry.size:
                    raise MalformedPackError("An object is larger than the pack claims.")
                if keep:
                    pieces.append(piece)
        except zlib.error:
            raise MalformedPackError("The pack has an object that does not inflate.") from None
        if size != entry.size:
            raise MalformedPackError("An object is smaller than the pack claims.")
        return (b"".join(pieces) if keep else None), position - len(inflater.unused_data)

    def _spend(self, size: int) -> None:
        self._total += size
        if self._total > self._bounds.total_bytes:
            raise MalformedPackError(
                f"The pack inflates to more than {self._bounds.total_bytes} bytes."
            )

    def _resolve(
        self, base: tuple[ObjectKind, bytes | None, int], delta: bytes | None
    ) -> tuple[ObjectKind, bytes | None, int]:
        kind, source, depth = base
        if depth >= self._bounds.depth:
            raise MalformedPackError(f"A delta chain is longer than {self._bounds.depth}.")
        if source is None or delta is None:
            return kind, None, depth + 1
        content = apply_delta(source, delta, self._bounds.object_bytes)
        self._spend(len(content or b""))
        return kind, content, depth + 1


def _varint(delta: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = delta[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position
        if shift > 63:
            raise MalformedPackError("A delta has an impossible size.")


def apply_delta(source: bytes, delta: bytes, most: int) -> bytes | None:
    """Return the target of a delta; None when it is larger than `most` bytes."""
    try:
        claimed, position = _varint(delta, 0)
        size, position = _varint(delta, position)
        if claimed != len(source):
            raise MalformedPackError("A delta does not fit its base.")
        if size > most:
            return None
        pieces: list[bytes] = []
        made = 0
        while position < len(delta):
            code = delta[position]
            position += 1
            if code & 0x80:
                offset = length = 0
                for bit in range(4):
                    if code >> bit & 1:
                        offset |= delta[position] << (8 * bit)
                        position += 1
                for bit in range(3):
                    if code >> (4 + bit) & 1:
                        length |= delta[position] << (8 * bit)
                        position += 1
                length = length or 0x10000
                if offset + length > len(source):
                    raise MalformedPackError("A delta copies from outside its base.")
                pieces.append(source[offset : offset + length])
            elif code:
                length = code
                if position + length > len(delta):
                    raise MalformedPackError("A delta ends inside its data.")
                pieces.append(delta[position : position + length])
                position += length
            else:
                raise MalformedPackError("A delta has an unknown instruction.")
            made += length
            if made > size:
                raise MalformedPackError("A delta makes more than it claims.")
    except IndexError:
        raise MalformedPackError("A delta is cut off.") from None
    if made != size:
        raise MalformedPackError("A delta makes less than it claims.")
    return b"".join(pieces)
