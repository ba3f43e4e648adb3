"""Comments by which people say that a token may be where it is: `patrol:allow` and its like.

They are heeded by `patrol scan` alone. A comment is written by whoever writes the file, so by
whoever leaks as well: the service never looks at one.
"""

from __future__ import annotations

import re

# Each is a known scanner's own word; whoever comes from there need not mark anything again.
_HERE = re.compile(
    rb"(?:patrol|gitleaks|betterleaks):allow|kingfisher:ignore|pragma: ?(?:allow|white)list secret"
)
_NEXT = re.compile(rb"pragma: ?(?:allow|white)list nextline secret")
_PARTS = (b":allow", b":ignore", b"pragma:")  # one is in each: much cheaper to look for
_REACH = 1_024  # bytes to either side: a file may be one line, and every token in it is asked about


def is_allowed(data: bytes, start: int, end: int) -> bool:
    """True when a comment in the line of `data[start:end]`, or in the one before, allows it.

    Looks at no more than a kibibyte to either side, so that it costs the same in any file. Text in
    UTF-16 is read as well.
    """
    low, high = max(0, start - _REACH), end + _REACH
    before, after = data[low:start], data[end:high]
    if b"\0" in before or b"\0" in after:
        before, after = before.replace(b"\0", b""), after.replace(b"\0", b"")
    if not any(part in before or part in after for part in _PARTS):
        return False
    earlier, _, left = before.rpartition(b"\n")
    # The token itself is left out: it is no comment.
    if _HERE.search(left) or _HERE.search(after.partition(b"\n")[0]):
        return True
    return _NEXT.search(earlier.rpartition(b"\n")[2]) is not None
