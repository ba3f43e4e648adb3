"""How bytes look in base64, where not all of them are known and what stands around them is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scanner.matcher.anchor import ANY, Sets
from scanner.matcher.shape import Byte, write

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_URL_SAFE = {ord("+"): ord("-"), ord("/"): ord("_")}
_LEAST_KNOWN = 3  # characters; fewer are met everywhere
_LEAST_BROKEN = 4  # characters of each alignment, for these to be looked for over an end of line
_RARE = 4
# Ways of a character that is known: two, where a letter's case is open. Every fourth character
# holds no bit of it, and one such character alone would be met everywhere.
_CASES = 2
_JOIN = "(?:(?:\\x5cr)?\\x5cn|\\r?\\n[ \\t]*)"
# The end of a line or of a string, or the sign of an escape; and what may stand before the rest in
# the next line (of an escape, its letter).
_LINE_ENDS = "[\\r\\n\\x5c\\x22\\x27\\x60]"
_LINE_BEGINS = "[\\n\\x20\\tn\\x22\\x27\\x60]"


@dataclass(frozen=True, slots=True)
class Image:
    """Some bytes in base64, in one of their three alignments to its groups.

    `sets`: which characters may stand in each place. `phase`: how many stand between the start of
    the first group of four and the last of these.
    """

    sets: Sets
    phase: int

    @property
    def written(self) -> list[str]:
        """The expression of each character."""
        return [write((Byte(members),)) for members in self.sets]


def images(sets: Sets) -> tuple[Image, ...]:
    """Return how `sets` look in each alignment. Outer characters that hold bits of other bytes are
    left out; an alignment that leaves too few is empty."""
    return tuple(_image(sets, alignment) for alignment in range(3))


def broken(once: Sequence[Image]) -> Iterator[str]:
    """Yield expressions for images that a line ends in; none where an image has too few characters.

    Of one part or the other, where that is long enough to be rare; else of both.
    """
    if min(len(image.sets) for image in once) < _LEAST_BROKEN:
        return
    for image in once:
        written = image.written
        for cut in range(1, len(written)):
            left, right = "".join(written[:cut]), "".join(written[cut:])
            if max(cut, len(written) - cut) < _RARE:
                yield f"{left}{_JOIN}{right}"
            elif cut > len(written) - cut:
                yield f"{left}{_LINE_ENDS}"
            else:
                yield f"{_LINE_BEGINS}{right}"


def _image(sets: Sets, alignment: int) -> Image:
    characters = _characters(sets, alignment)
    known = [index for index, one in enumerate(characters) if len(one) <= _CASES]
    if len(known) < _LEAST_KNOWN:
        return Image((), 0)
    kept = characters[known[0] : known[-1] + 1]
    either = (one | {_URL_SAFE[c] for c in one if c in _URL_SAFE} for one in kept)
    return Image(tuple(either), known[-1])


def _characters(sets: Sets, alignment: int) -> list[frozenset[int]]:
    """For each base64 character that holds bits of `sets`: which it can be."""
    padded = (*(ANY,) * alignment, *sets, *(ANY,) * 2)
    characters = []
    for index in range(-(-(alignment + len(sets)) * 8 // 6)):
        byte, shift = divmod(6 * index, 8)
        firsts = {(one << 8 >> (10 - shift)) & 63 for one in padded[byte]}
        seconds = {two >> (10 - shift) for two in padded[byte + 1]} if shift > 2 else {0}
        sixes = {first | second for first in firsts for second in seconds}
        characters.append(frozenset(_BASE64[six] for six in sixes))
    return characters
