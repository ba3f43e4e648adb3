"""What can be wrong with a pack: a closed list, so that the parsing child can name a fault and its
parent can believe no more than a name."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """The text of a `MalformedPackError`."""

    NOT_A_PACK = "The pack is cut off or not a pack."
    VERSION = "The pack has an unknown version."
    COUNT = "The pack claims more objects than it has room for."
    CHECKSUM = "The pack's checksum is wrong."
    CUT = "The pack ends inside an object."
    KIND = "The pack has an object of unknown kind."
    SIZE = "The pack has an object of impossible size."
    INFLATE = "The pack has an object that does not inflate."
    LARGER = "An object is larger than the pack claims."
    SMALLER = "An object is smaller than the pack claims."
    TRAILING = "The pack has bytes after its last object."
    BASE = "The pack has a delta without its base."
    DELTA_CUT = "A delta is cut off."
    DELTA_BASE_SIZE = "A delta does not fit its base."
    DELTA_COPY = "A delta copies from outside its base."
    DELTA_CODE = "A delta has an unknown instruction."
    DELTA_SIZE = "A delta does not make what it claims."
