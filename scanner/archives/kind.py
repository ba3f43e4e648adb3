"""What an object is, told by its bytes, never by its name. Most are told apart by two of them.

Sources: PKWARE's APPNOTE, RFC 1952, RFC 8878, the xz and bzip2 formats, POSIX ustar.
"""

from __future__ import annotations

from enum import StrEnum

BLOCK = 512  # bytes of a tar block
_ZIP_END = b"PK\x05\x06"
_ZIP_END_BYTES = 22
_ZIP_TAIL = _ZIP_END_BYTES + 0xFFFF  # with the longest comment
_CHECKSUM_AT, _CHECKSUM_END = 148, 156


class Kind(StrEnum):
    """A format that can be opened."""

    ZIP = "zip"  # wheel, jar, apk, docx, xlsx, pptx, epub and others are zip files
    TAR = "tar"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    LZMA = "lzma"
    ZSTD = "zstd"


_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # a block, or the end of an empty stream
_SIZES = frozenset({1 << n for n in range(12, 31)} | {3 << n for n in range(11, 29)})


def _zip(data: bytes) -> Kind | None:
    return Kind.ZIP if data[2:4] in (b"\3\4", b"\5\6", b"\7\x08") else None


def _gzip(data: bytes) -> Kind | None:
    is_one = len(data) >= 18 and data[2] == 8 and not data[3] & 0xE0
    return Kind.GZIP if is_one else None


def _bzip2(data: bytes) -> Kind | None:
    is_one = data[2:3] == b"h" and data[3:4] in b"123456789" and data[4:10] in _BZIP2_BLOCKS
    return Kind.BZIP2 if is_one else None


def _xz(data: bytes) -> Kind | None:
    return Kind.XZ if data[:6] == b"\xfd7zXZ\0" else None


def _lzma(data: bytes) -> Kind | None:
    # No magic: the usual properties, a dictionary as encoders make them, a size or none.
    size = data[5:13]
    is_one = len(data) > 13 and int.from_bytes(data[1:5], "little") in _SIZES
    return Kind.LZMA if is_one and (size == b"\xff" * 8 or size[5:] == b"\0\0\0") else None


def _zstd(data: bytes) -> Kind | None:
    return Kind.ZSTD if data[2:4] == b"\x2f\xfd" else None


def _zstd_skippable(data: bytes) -> Kind | None:
    if data[1:4] != b"\x2a\x4d\x18":
        return None
    after = 8 + int.from_bytes(data[4:8], "little")
    return Kind.ZSTD if data[after : after + 4] == b"\x28\xb5\x2f\xfd" else None


_STARTS = {
    b"PK": _zip,
    b"\x1f\x8b": _gzip,
    b"BZ": _bzip2,
    b"\xfd7": _xz,
    b"\x5d\0": _lzma,
    b"\x28\xb5": _zstd,
    **{bytes((low, 0x2A)): _zstd_skippable for low in range(0x50, 0x60)},
}


def tell(data: bytes | memoryview) -> tuple[Kind, ...]:
    """Return what `data` is, mostly nothing; several where it is one format before and a zip file
    at its end."""
    # Nearly everything is no archive, and must be told so in a fraction of the time matching takes.
    size = len(data)
    if isinstance(data, bytes):
        head = data
        has_end = 5 in data if size <= _ZIP_TAIL else data.find(5, size - _ZIP_TAIL) >= 0
    else:
        head = bytes(data[:BLOCK])
        has_end = 5 in bytes(data[-_ZIP_TAIL:])  # no text has that byte
    if head[:2] not in _STARTS and not has_end and (size < BLOCK or not is_tar_header(head)):
        return ()
    data = bytes(data)
    start = _STARTS.get(data[:2])
    kind = None if start is None else start(data)
    if kind is None and is_tar_header(data):
        kind = Kind.TAR
    if has_end and kind is not Kind.ZIP:
        at = find_zip_end(data)
        is_whole = at >= 0 and at + _ZIP_END_BYTES + _short(data, at + 20) == size
        if is_whole or (at >= 0 and kind is None):
            return (Kind.ZIP,) if kind is None else (kind, Kind.ZIP)
    return () if kind is None else (kind,)


def find_zip_end(data: bytes) -> int:
    """Return where the end record of a zip file is, one that leads to a directory; or -1."""
    at = len(data)
    low = max(0, at - _ZIP_TAIL)
    while (at := data.rfind(_ZIP_END, low, at)) >= 0:
        if at + _ZIP_END_BYTES > len(data):
            continue
        size = int.from_bytes(data[at + 12 : at + 16], "little")
        # The 64-bit form stands between directory and end, so the directory ends elsewhere.
        if data[at - size : at - size + 4] == b"PK\1\2" or data[at - 20 : at - 16] == b"PK\6\7":
            return at
    return -1


def is_tar_header(data: bytes) -> bool:
    """Tell whether a tar header begins here: nothing but its checksum says so for certain."""
    if data[257:262] != b"ustar" and data[99:100] != b"\0":
        return False
    given = data[_CHECKSUM_AT:_CHECKSUM_END].strip(b" \0")
    if len(data) < BLOCK or not given or given.strip(b"01234567"):
        return False
    rest = sum(data[:BLOCK]) - sum(data[_CHECKSUM_AT:_CHECKSUM_END])
    return int(given, 8) == rest + 8 * 0x20


def _short(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")
