"""The search for raw tokens in whatever a run leaves behind, in every form they may take."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Mapping

import hyperscan

_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")


def base64_forms(data: bytes) -> Iterator[bytes]:
    """What of `data` is stable in base64, at each of its three alignments."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data + b"\0" * 3)
        yield encoded[4 * (shift > 0) : 4 * ((shift + len(data)) // 3)]


FORMS: dict[str, Callable[[bytes], list[bytes]]] = {
    "as it is": lambda token: [token],
    "without its ends": lambda token: [token[8:-8]],
    "base64": lambda token: list(base64_forms(token)),
    "base64url": lambda token: [form.translate(_URL_SAFE) for form in base64_forms(token)],
    "hex": lambda token: [token.hex().encode(), token.hex().upper().encode()],
    "URL-escaped": lambda token: [b"".join(b"%%%02X" % byte for byte in token)],
    "JSON-escaped": lambda token: [b"".join(b"\\u%04x" % byte for byte in token)],
    "UTF-16": lambda token: [token.decode().encode("utf-16-le")],
    "SHA-256": lambda token: [
        hashlib.sha256(token).digest(),
        hashlib.sha256(token).hexdigest().encode(),
        base64.b64encode(hashlib.sha256(token).digest())[:40],
    ],
}  # fmt: skip


def inflated(data: bytes) -> Iterator[bytes]:
    """Whatever zlib or gzip streams `data` holds, opened."""
    for head in _ZLIB.finditer(data):
        stream = zlib.decompressobj(wbits=47)
        try:
            yield stream.decompress(data[head.start() :], 1 << 22)
        except zlib.error:
            continue


def _literally(value: bytes) -> bytes:
    return "".join(f"\\x{byte:02x}" for byte in value).encode()


class Search:
    """Looks for all of many tokens at once. `planted`: what a token is called -> the token."""

    def __init__(self, planted: Mapping[str, str]) -> None:
        self._needles = [
            (f"{name}, {form}", value)
            for name, token in planted.items()
            for form, makes in FORMS.items()
            for value in makes(token.encode())
        ]
        count = len(self._needles)
        self._database = hyperscan.Database()
        self._database.compile(
            expressions=[
                "".join(f"\\x{byte:02x}" for byte in n).encode() for _, n in self._needles
            ],
            ids=list(range(count)),
            elements=count,
            flags=[hyperscan.HS_FLAG_SINGLEMATCH] * count,
        )

    def find(self, place: str, data: bytes) -> list[str]:
        """Where a token stands: "place: which token, in which form"."""
        found: list[str] = []

        def hit(number: int, *_: object) -> None:
            found.append(f"{place}: {self._needles[number][0]}")

        for text in (data, *inflated(data)):
            self._database.scan(text, match_event_handler=hit)
        return list(dict.fromkeys(found))


def traces(haystack: Mapping[str, bytes], planted: Mapping[str, str]) -> list[str]:
    """What `Search` finds in all of the haystack."""
    search = Search(planted)
    return [hit for place, data in haystack.items() for hit in search.find(place, data)]
