"""The ways a token stands in files, for tests: each function puts a token into bytes."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator

Embed = Callable[[bytes], bytes]


def _lines(data: bytes, width: int, separator: bytes) -> bytes:
    return separator.join(data[at : at + width] for at in range(0, len(data), width))


def _text(before: str, after: str, encoding: str) -> Embed:
    return lambda token: (before + token.decode() + after).encode(encoding)


def _around(before: bytes, after: bytes) -> Embed:
    return lambda token: before + token + after


def _base64(before: bytes, width: int = 0, separator: bytes = b"\n") -> Embed:
    def embed(token: bytes) -> bytes:
        encoded = base64.b64encode(before + token + b"\n")
        return b"data: " + (_lines(encoded, width, separator) if width else encoded) + b"\n"

    return embed


def _url_safe(before: bytes) -> Embed:
    return lambda token: b"?state=" + base64.urlsafe_b64encode(before + token).rstrip(b"=") + b"&x"


def _joined(quote: bytes, seam: bytes) -> Embed:
    def embed(token: bytes) -> bytes:
        half = len(token) // 2
        return b"key = " + quote + token[:half] + quote + seam + quote + token[half:] + quote

    return embed


def _json(token: bytes) -> bytes:
    return json.dumps({"env": "A=1\n" + token.decode() + "\tB"}).encode()


def _notebook(token: bytes) -> bytes:
    cell = {"cell_type": "code", "source": ["import os\n", f'KEY = "{token.decode()}"\n']}
    return json.dumps({"cells": [cell], "nbformat": 4}, indent=1).encode()


def zipped(token: bytes) -> bytes:
    """A compressed archive with the token in a file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conf/settings.ini", b"[auth]\nkey = " + token + b"\n" + b"x = 1\n" * 99)
    return file.getvalue()


def tarred(token: bytes) -> bytes:
    """A compressed tar with the token in a file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        content = b"export TOKEN=" + token + b"\n"
        member = tarfile.TarInfo("home/.profile")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


PLAIN: dict[str, Embed] = {
    "alone": _around(b"", b""),
    "at the start": _around(b"", b" = key\n"),
    "at the end": _around(b"key = ", b""),
    "in double quotes": _around(b'key = "', b'"\n'),
    "in single quotes": _around(b"key = '", b"'\n"),
    "in backticks": _around(b"`", b"`"),
    "in YAML": _around(b"auth:\n  token: ", b"\n  user: x\n"),
    "in a YAML list": _around(b"- ", b"\n- x\n"),
    "in JSON": _around(b'{"token":"', b'","x":1}'),
    "in an .env file": _around(b"export TOKEN=", b"\nX=1\n"),
    "in a URL's user": _around(b"https://", b"@host.example/a.git"),
    "in a URL's password": _around(b"https://user:", b"@host.example/a.git"),
    "in a query": _around(b"https://host.example/?token=", b"&a=b"),
    "in Markdown": _around(b"Use **", b"** here"),
    "in Markdown's link": _around(b"[x](https://host.example/?t=", b")"),
    "in a Markdown table": _around(b"|", b"|x|"),
    "in XML": _around(b"<token>", b"</token>"),
    "in an attribute": _around(b'<a token="', b'"/>'),
    "in a header": _around(b"Authorization: Bearer ", b"\r\nHost: x\r\n"),
    "in curl": _around(b"curl -H 'X-Key: ", b"' host.example"),
    "with CRLF": _around(b"a\r\nkey=", b"\r\nb\r\n"),
    "in a CSV": _around(b"1,", b",x\n"),
    "between other bytes": _around(b"\x00\xff\x01", b"\x00\xfe"),
    "between letters of other scripts": _around("é".encode(), "ü".encode()),
    "in a function's call": _around(b"login(", b");"),
    "back to back": lambda token: token + b"\n" + token,
}
ENCODED: dict[str, tuple[str, Embed]] = {
    "UTF-16, little-endian": ("utf-16", _text("\ufeffkey = ", "\r\n", "utf-16-le")),
    "UTF-16, big-endian": ("utf-16", _text("\ufeffkey = ", "\r\n", "utf-16-be")),
    "UTF-16 between other letters": ("utf-16", _text("é", "Ā", "utf-16-le")),
    "UTF-16 at an odd offset": ("utf-16", lambda t: b"." + _text("é", "Ā", "utf-16-le")(t)),
    "base64, first alignment": ("base64", _base64(b"")),
    "base64, second alignment": ("base64", _base64(b" ")),
    "base64, third alignment": ("base64", _base64(b'="')),
    "base64 of a longer text": ("base64", _base64(b"USER=admin\nTOKEN=" * 20)),
    "base64 in lines of 76": ("base64", _base64(b"user:", 76)),
    "base64 in lines of 64, CRLF": ("base64", _base64(b"x" * 30 + b"\n", 64, b"\r\n")),
    "base64 in a Kubernetes secret": ("base64", _base64(b"x" * 40 + b" ", 60, b"\n    ")),
    "base64 in lines in JSON": ("base64", _base64(b"x" * 50 + b":", 76, b"\\n")),
    "base64 in lines of 20": ("base64", _base64(b"ab:", 20)),
    "base64 for URLs": ("base64", _url_safe(b"\xff\xfe:")),
    "base64 after a URL's escape": (
        "base64",
        lambda t: b"?a%3D" + base64.b64encode(t).replace(b"=", b"%3D"),
    ),
    "base64 of a registry's login": (
        "base64-base64",
        lambda t: b"x: " + base64.b64encode(b'{"auth": "' + base64.b64encode(b"user:" + t) + b'"}'),
    ),
    "a command for PowerShell": (
        "base64-utf-16",
        lambda t: b"-enc " + base64.b64encode(('$k="' + t.decode() + '"').encode("utf-16-le")),
    ),
    "after JSON's line break": ("json", _json),
    "between JSON's quotes": ("json", _around(b'{"a":"\\u0022', b'\\u0022"}')),
    "after a URL's escape": ("url", _around(b"u=a%3D", b"%26b")),
    "after an escaped space": ("url", _around(b"q=Bearer%20", b"&c")),
    "in a string put together with +": ("joined", _joined(b'"', b" +\n    ")),
    "in a string put together in C": ("joined", _joined(b'"', b"\n  ")),
    "in a string put together with .": ("joined", _joined(b"'", b"\r\n  . ")),
    "in a continued line": ("joined", _joined(b'"', b" \\\n  ")),
}
IN_LINES = frozenset(name for name in ENCODED if " lines" in name or "Kubernetes" in name)
OPENED: dict[str, Embed] = {
    "a notebook": _notebook,
    "a zip archive": zipped,
    "a tar archive": tarred,
}


def quoted(token: bytes) -> bytes:
    """The token as it stands in a query's value."""
    return b"?t=" + urllib.parse.quote(token).encode() + b"&x=1"


def everywhere() -> Iterator[tuple[str, str, Embed]]:
    """Every way, as (its name, the encoding that is told, the function)."""
    yield from ((name, "plain", embed) for name, embed in PLAIN.items())
    yield from ((name, encoding, embed) for name, (encoding, embed) in ENCODED.items())
