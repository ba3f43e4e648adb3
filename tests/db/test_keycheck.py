"""Key checks: with the wrong pepper everything would read "never issued", so no start with one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import Engine, select

from scanner.db.engine import reader
from scanner.db.keycheck import check_keys
from scanner.db.schema import key_checks
from scanner.errors import ConfigurationError
from scanner.keyring import Key

K1, K2, K3 = (Key(f"k{n}", f"key-material-{n}".encode()) for n in (1, 2, 3))


def start(engine: Engine, ring: Sequence[Key], purpose: str = "pepper") -> None:
    with engine.begin() as connection:
        check_keys(connection, purpose, ring)


def recorded(engine: Engine) -> set[tuple[str, str]]:
    with reader(engine).connect() as connection:
        rows = connection.execute(select(key_checks.c.purpose, key_checks.c.key_id))
        return set(map(tuple, rows))


def test_the_same_ring_starts_again(engine: Engine) -> None:
    for _ in range(3):
        start(engine, [K2, K1])
    assert recorded(engine) == {("pepper", "k2"), ("pepper", "k1")}


def test_another_key_of_the_same_name_is_refused(engine: Engine) -> None:
    start(engine, [K1])
    with pytest.raises(ConfigurationError, match="'k1' for pepper is not the one") as caught:
        start(engine, [Key("k1", b"another-material")])
    assert "another-material" not in str(caught.value)
    start(engine, [K1])


def test_keys_rotate(engine: Engine) -> None:
    for ring in ([K1], [K2, K1], [K2], [K3, K2], [K3]):
        start(engine, ring)
    assert recorded(engine) == {("pepper", "k1"), ("pepper", "k2"), ("pepper", "k3")}
    with pytest.raises(ConfigurationError):
        start(engine, [K3, Key("k1", b"another-material")])


def test_a_ring_of_strangers_is_refused(engine: Engine) -> None:
    start(engine, [K2, K1])
    with pytest.raises(ConfigurationError, match=r"keep these \(k1, k2\)"):
        start(engine, [K3])


def test_a_refused_start_leaves_nothing(engine: Engine) -> None:
    start(engine, [K1])
    with pytest.raises(ConfigurationError):
        start(engine, [K3, Key("k1", b"another-material")])
    assert recorded(engine) == {("pepper", "k1")}


def test_each_purpose_has_its_keys(engine: Engine) -> None:
    start(engine, [K1], "pepper")
    start(engine, [Key("k1", b"another-material")], "fingerprint")
    assert recorded(engine) == {("pepper", "k1"), ("fingerprint", "k1")}


def test_what_is_stored_tells_nothing_of_the_key(engine: Engine) -> None:
    start(engine, [K1], "pepper")
    start(engine, [K1], "fingerprint")
    with reader(engine).connect() as connection:
        values = list(connection.execute(select(key_checks.c.value)).scalars())
    assert len(set(values)) == 2  # nor that one key serves two purposes
    assert all(len(value) == 64 and K1.value.hex() not in value for value in values)
