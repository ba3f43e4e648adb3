"""Sealed values: opened by the ring's keys, for the row they were sealed for, and not otherwise."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.db.seals import Sealer
from scanner.errors import ConfigurationError, FinalError
from scanner.keyring import Key
from scanner.model import Secret

RNG = random.Random(11)


def key(name: str) -> Key:
    return Key(name, base64.urlsafe_b64encode(RNG.randbytes(32)))


K1, K2 = key("k1"), key("k2")


@settings(derandomize=True, database=None, deadline=None, max_examples=50)
@given(bound_to=st.text(), value=st.dictionaries(st.text(), st.text()))
def test_what_was_sealed_opens(bound_to: str, value: dict[str, str]) -> None:
    sealer = Sealer([K1])
    assert sealer.open(bound_to, sealer.seal(bound_to, value)) == value


def test_nothing_of_it_can_be_read(new_secret: Callable[[], Secret]) -> None:
    raw = new_secret().reveal()
    sealed = Sealer([K1]).seal("row", {"ref": raw.decode()})
    assert raw not in sealed
    assert raw not in base64.urlsafe_b64decode(sealed)
    assert Sealer([K1]).seal("row", {"ref": raw.decode()}) != sealed  # nor that two are the same


def test_moved_to_another_row_it_stays_shut() -> None:
    sealed = Sealer([K1]).seal("row-1", {"a": "b"})
    with pytest.raises(FinalError, match="moved to another row"):
        Sealer([K1]).open("row-2", sealed)


def test_every_change_is_found() -> None:
    sealer = Sealer([K1])
    sealed = sealer.seal("row", {"a": "b"})
    for place in range(0, len(sealed) - 2, 7):
        changed = bytearray(sealed)
        changed[place] = ord("A") if changed[place] != ord("A") else ord("B")
        with pytest.raises(FinalError, match="cannot be opened"):
            sealer.open("row", bytes(changed))
    for broken in (b"", sealed[:-4], sealed[10:], b"\xff" * 40):
        with pytest.raises(FinalError, match="cannot be opened"):
            sealer.open("row", broken)


def test_a_ring_opens_under_its_older_keys_and_seals_under_the_newest() -> None:
    old = Sealer([K1]).seal("row", {"a": "b"})
    rotated = Sealer([K2, K1])
    assert rotated.open("row", old) == {"a": "b"}
    new = rotated.seal("row", {"a": "c"})
    assert Sealer([K2]).open("row", new) == {"a": "c"}
    for sealer, sealed in ((Sealer([K1]), new), (Sealer([K2]), old)):
        with pytest.raises(FinalError, match="key is gone"):
            sealer.open("row", sealed)


@pytest.mark.parametrize(
    "ring", [[], [Key("k1", b"hush-hush-hush")], [K1, Key("k2", b"hush" * 8)], [Key("k", b"\xff")]]
)
def test_a_key_of_another_shape_is_refused_without_being_told(ring: list[Key]) -> None:
    with pytest.raises(ConfigurationError, match=r"^PATROL_SEAL_KEYS: ") as caught:
        Sealer(ring)
    assert "hush" not in str(caught.value)
