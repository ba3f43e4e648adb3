"""Text that strangers chose, made harmless to read in a mail.

Mail clients turn whatever looks like an address into a link, in plain text as well. A hostile
repository could so put its own link into a mail that people trust. So nothing here stays
linkable: `https://evil.example/x` reads `https[:]//evil[.]example/x`, as security people write it.
"""

from __future__ import annotations

import re
import unicodedata

# Control, format (bidi overrides, zero-width), surrogate, private use, unassigned; line separators.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS = re.compile(r"[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{3,}")

# A dot stays a dot only before one of these: endings of files that are no top-level domain, so
# "pipeline.yml" reads as it is, while "main.py" (.py is Paraguay) could be somebody's address.
_FILE_ENDINGS = frozenset(
    re.findall(
        r"\w+",
        """
    bak bash bat c cfg cjs cmd conf config cpp cs csproj css csv cxx dist dockerfile docx env
    example gif go gradle h har hcl hpp htm html ini ipynb jpg js json json5 jsonc jsx kt kts
    less lock log mjs npmrc orig out pdf pem php png ps1 psm1 rb sample scss sln sql svg
    tfvars toml tpl ts tsv tsx txt vue xlsx xml yaml yml
    """,
    )
)
_DOT = re.compile(r"(?<=[^\s/\\\[])[.\u3002\uff0e\uff61](?=([^\s/\\.\u3002\uff0e\uff61]+))")
_IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
_SCHEME = re.compile(r"(?<=\w):(?=\S)")
_AT = re.compile(r"(?<=[^\s/\[])@")


def shown(text: str, limit: int = 120) -> str:
    """Return `text` without characters that deceive a reader (they are shown as escapes), on one
    line, at most `limit` characters: the middle is left out, a path's end says most."""
    cut = _shorten(text, limit)
    escaped = "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _UNPRINTABLE
        else character
        for character in cut
    )
    # Piled-up accents paint over the lines above and below.
    return _shorten(_MARKS.sub(lambda found: found[0][:2], escaped), limit)


def inert(text: str, limit: int = 120) -> str:
    """Return `text` as `shown`, and so that no mail client makes a link, address or path of it."""
    safe = shown(text, limit)
    safe = safe.replace("\\\\", "[\\]\\")  # \\server\share
    safe = _SCHEME.sub("[:]", safe)
    safe = _AT.sub("[@]", safe)
    safe = _IPV4.sub(lambda found: found[0].replace(".", "[.]"), safe)
    return _shorten(_DOT.sub(_defang_dot, safe), limit)


def _defang_dot(found: re.Match[str]) -> str:
    label = found[1].lower()
    is_ending = label in _FILE_ENDINGS or label.isdecimal()
    return "." if found[0] == "." and is_ending else "[.]"


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    tail = limit // 2
    return f"{text[: limit - tail - 1]}…{text[len(text) - tail :]}"
