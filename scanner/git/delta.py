"""Applying a delta, pure. Source: gitformat-pack(5), "Deltified representation"."""

from __future__ import annotations

from scanner.errors import MalformedPackError
from scanner.git.faults import Fault

_MOST_SHIFT = 63


def target_size(delta: bytes, source_size: int) -> tuple[int, int]:
    """Return (size of the delta's result, where its instructions begin), for a base of that size.

    Errors: `MalformedPackError`.
    """
    try:
        claimed, position = _varint(delta, 0)
        size, position = _varint(delta, position)
    except IndexError:
        raise MalformedPackError(Fault.DELTA_CUT) from None
    if claimed != source_size:
        raise MalformedPackError(Fault.DELTA_BASE_SIZE)
    return size, position


def apply_delta(source: bytes, delta: bytes) -> bytes:
    """Return the delta's result. It never grows beyond the size the delta claims, which the caller
    has bounded. Errors: `MalformedPackError`.
    """
    size, position = target_size(delta, len(source))
    pieces: list[bytes] = []
    made, end, source_size = 0, len(delta), len(source)
    try:
        while position < end:
            code = delta[position]
            position += 1
            if code & 0x80:
                offset = length = 0
                if code & 0x01:
                    offset = delta[position]
                    position += 1
                if code & 0x02:
                    offset |= delta[position] << 8
                    position += 1
                if code & 0x04:
                    offset |= delta[position] << 16
                    position += 1
                if code & 0x08:
                    offset |= delta[position] << 24
                    position += 1
                if code & 0x10:
                    length = delta[position]
                    position += 1
                if code & 0x20:
                    length |= delta[position] << 8
                    position += 1
                if code & 0x40:
                    length |= delta[position] << 16
                    position += 1
                length = length or 0x10000
                if offset + length > source_size:
                    raise MalformedPackError(Fault.DELTA_COPY)
                pieces.append(source[offset : offset + length])
            elif code:
                length = code
                if position + length > end:
                    raise MalformedPackError(Fault.DELTA_CUT)
                pieces.append(delta[position : position + length])
                position += length
            else:
                raise MalformedPackError(Fault.DELTA_CODE)
            made += length
            if made > size:
                raise MalformedPackError(Fault.DELTA_SIZE)
    except IndexError:
        raise MalformedPackError(Fault.DELTA_CUT) from None
    if made != size:
        raise MalformedPackError(Fault.DELTA_SIZE)
    return b"".join(pieces)


def _varint(delta: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = delta[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position
        if shift > _MOST_SHIFT:
            raise MalformedPackError(Fault.DELTA_SIZE)
