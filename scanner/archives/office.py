"""The text of an office document's XML, where a word may be spread over many elements.

Word processors cut a text into runs wherever spelling or formatting changes, and the markup between
them hides a token from every pattern. Sources: ECMA-376 (Office Open XML), OpenDocument 1.3.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from dataclasses import dataclass

_NAMESPACES = re.compile(
    rb"schemas\.openxmlformats\.org/(?:wordprocessingml|spreadsheetml|presentationml|drawingml)/"
    rb"|purl\.oclc\.org/ooxml/|urn:oasis:names:tc:opendocument:"
)
_HEAD = 4_096  # bytes in which a document names its namespaces
_MARKUP = re.compile(rb"<[^<>]*>|&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});")
# Ends of paragraphs, cells and lines, with or without a prefix: text does not go on across them.
_BREAK = re.compile(
    rb"</(?:\w{1,10}:)?(?:p|h|c|si|tc|row|tr|table-cell|is|v)\s*>"
    rb"|<(?:\w{1,10}:)?(?:br|cr|tab|line-break)[\s/>]"
)
_NAMED = {b"&amp;": b"&", b"&lt;": b"<", b"&gt;": b">", b"&quot;": b'"', b"&apos;": b"'"}


@dataclass(frozen=True, slots=True)
class OfficeText:
    """The text, and where each piece of it stands in the XML."""

    text: bytes
    _starts: array[int]  # of the pieces in the text
    _sources: array[int]  # of the same pieces in the XML

    def source(self, position: int) -> int:
        """Return where the byte at `position` of the text stands in the XML."""
        piece = bisect_right(self._starts, position) - 1
        return self._sources[piece] + position - self._starts[piece]


def office_text(data: bytes) -> OfficeText | None:
    """Return the text of a part of an office document, None for anything else."""
    if b"<" not in data[:4] or _NAMESPACES.search(data, 0, _HEAD) is None:
        return None
    pieces: list[bytes] = []
    starts, sources = array("Q"), array("Q")
    size = position = 0
    for found in _MARKUP.finditer(data):
        begin = found.start()
        markup = found[0]
        if begin > position:
            pieces.append(data[position:begin])
            starts.append(size)
            sources.append(position)
            size += begin - position
        position = found.end()
        if markup[:1] == b"&":
            written = _NAMED.get(markup) or _character(markup)
        else:
            written = b"\n" if _BREAK.match(markup) else b""
        if written:
            pieces.append(written)
            starts.append(size)
            sources.append(begin)
            size += len(written)
    pieces.append(data[position:])
    starts.append(size)
    sources.append(position)
    return OfficeText(b"".join(pieces), starts, sources)


def _character(markup: bytes) -> bytes:
    code = int(markup[3:-1], 16) if markup[2:3] == b"x" else int(markup[2:-1])
    is_one = 0 < code < 0x11_0000 and not 0xD800 <= code < 0xE000
    return chr(code).encode() if is_one else b""
