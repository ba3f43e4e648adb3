"""Shannon entropy of a token, as rules of other scanners ask for it."""

from __future__ import annotations

import math
from collections import Counter


def entropy(data: bytes) -> float:
    """Return the entropy of the bytes' own frequencies, in bits a byte: 0 to 8."""
    size = len(data)
    return -sum(count / size * math.log2(count / size) for count in Counter(data).values())
