"""One line of a .gitignore as a regular expression over bytes.

Libraries for this differ from git in corners (ranges, classes, `**` behind a name, blanks), and a
difference is a file that is not scanned. So the rules of gitignore(5) and of git's own matching
stand here, and a property test asks git itself.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass

_SPECIAL = b"*?[\\"
_SLASH = 0x2F
_BACKSLASH = 0x5C
_ASCII = {
    b"alnum": string.ascii_letters + string.digits,
    b"alpha": string.ascii_letters,
    b"blank": " \t",
    b"cntrl": "".join(map(chr, (*range(32), 127))),
    b"digit": string.digits,
    b"graph": "".join(map(chr, range(33, 127))),
    b"lower": string.ascii_lowercase,
    b"print": "".join(map(chr, range(32, 127))),
    b"punct": string.punctuation,
    b"space": " \t\n\r",
    b"upper": string.ascii_uppercase,
    b"xdigit": string.hexdigits,
}


@dataclass(frozen=True, slots=True)
class IgnorePattern:
    """What a line says. An anchored one is about the path from its file's folder on, another one
    about the name alone; both are matched as a whole."""

    expression: re.Pattern[bytes]
    ignores: bool = True
    for_folders: bool = False
    is_anchored: bool = False


class _NeverError(ValueError):
    """Nothing can match the pattern."""


def read_pattern(line: bytes) -> IgnorePattern | None:
    """Return the pattern of a line without its newline; None: it can match nothing."""
    if line.startswith(b"#"):
        return None
    text = _trim(line.removesuffix(b"\r").partition(b"\0")[0])
    ignores = not text.startswith(b"!")
    text = text if ignores else text[1:]
    for_folders = text.endswith(b"/")
    text = text.removesuffix(b"/")
    is_anchored = b"/" in text
    text = text.removeprefix(b"/")
    if not text:
        return None
    try:
        written = b"".join(_translate(text, is_path=is_anchored))
    except _NeverError:
        return None
    return IgnorePattern(re.compile(written, re.DOTALL), ignores, for_folders, is_anchored)


def _trim(text: bytes) -> bytes:
    """Cut spaces at the end, but for one that a backslash protects."""
    bare = text.rstrip(b" ")
    backslashes = len(bare) - len(bare.rstrip(b"\\"))
    return text[: len(bare) + 1] if backslashes % 2 else bare


def _translate(text: bytes, *, is_path: bool) -> Iterable[bytes]:
    within = rb"[^/]" if is_path else rb"."
    # git compares the plain beginning first and lets wildcards begin behind it, as if nothing
    # stood before them: "a**/b" is "ab", too.
    start = next((at for at, byte in enumerate(text) if byte in _SPECIAL), len(text))
    at = 0
    while at < len(text):
        byte = text[at]
        if byte == ord("*"):
            end = at
            while text[end : end + 1] == b"*":
                end += 1
            begins = at in (0, start) or text[at - 1] == _SLASH
            rest = text[end : end + 2]
            spans = is_path and end - at > 1 and begins
            if spans and rest.startswith(b"/"):
                yield rb"(?:.*/)?"
                end += 1
            elif spans and (not rest or rest == rb"\/"):
                yield rb".*"
            else:
                yield within + b"*"
            at = end
        elif byte == ord("?"):
            yield within
            at += 1
        elif byte == ord("["):
            members, at = _members(text, at + 1)
            yield _class(members - {_SLASH} if is_path else members)
        else:
            if byte == _BACKSLASH:
                at += 1
            if at == len(text):
                raise _NeverError
            yield re.escape(text[at : at + 1])
            at += 1


def _members(text: bytes, at: int) -> tuple[frozenset[int], int]:
    """Read a class from behind its "[" on; returns its bytes and where it ends."""
    negate = text[at : at + 1] in (b"!", b"^")
    at += negate
    first, before = at, 0
    members: set[int] = set()
    while at == first or text[at : at + 1] != b"]":
        escaped = text[at : at + 1] == b"\\"
        byte, at = _byte(text, at)
        if byte == ord("-") and not escaped and before and text[at : at + 1] not in (b"", b"]"):
            high, at = _byte(text, at)
            members.update(range(before, high + 1))
            before = 0
        elif byte == ord("[") and not escaped and text[at : at + 1] == b":":
            close = text.find(b"]", at + 1)
            if close < 0:
                raise _NeverError
            if close - at >= 2 and text[close - 1] == ord(":"):
                name = text[at + 1 : close - 1]
                if name not in _ASCII:
                    raise _NeverError
                members.update(_ASCII[name].encode())
                at, before = close + 1, 0
            else:
                members.add(byte)
                before = byte
        else:
            members.add(byte)
            before = byte
    return (frozenset(range(256)) - members if negate else frozenset(members)), at + 1


def _byte(text: bytes, at: int) -> tuple[int, int]:
    """Return the byte at `at`, or the one a backslash there protects, and where to go on."""
    if text[at : at + 1] == b"\\":
        at += 1
    if at >= len(text):
        raise _NeverError
    return text[at], at + 1


def _class(members: frozenset[int]) -> bytes:
    if not members:
        raise _NeverError
    return b"[" + b"".join(b"\\x%02x" % member for member in sorted(members)) + b"]"
