"""Chains of keys, against the definition written out by hand."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from scanner.db.schema import digest_chains
from scanner.errors import ConfigurationError, FinalError, StoreUnavailableError
from scanner.keyring import Key
from scanner.model import Secret, Validity
from scanner.stores.digests import DigestRing, Peppers, begins_with
from scanner.stores.sql import SqlTokenStore

K1, K2, K3, ACME = (Key(name, name.encode() * 20) for name in ("k1", "k2", "k3", "acme"))
RING = DigestRing([K3, K2, K1], [ACME])
KEYS = {key.id: key.value for key in (K1, K2, K3, ACME)}


def by_hand(chain: str, token: bytes) -> str:
    value = token
    for place, name in enumerate(chain.split(">")):
        if place == 0 and name == "sha256":
            value = hashlib.sha256(value).digest()
        else:
            value = hmac.new(KEYS[name], value, hashlib.sha256).digest()
    return value.hex()


CHAINS = st.builds(
    lambda first, rest: ">".join([first, *rest]),
    st.sampled_from(["k1", "k2", "k3", "acme", "sha256"]),
    st.lists(st.sampled_from(["k1", "k2", "k3"]), max_size=4),
)


@settings(max_examples=300, derandomize=True)
@given(CHAINS, st.binary(max_size=100))
def test_a_digest_is_what_its_chain_says(chain: str, token: bytes) -> None:
    assert RING.digest(chain, Secret(token)) == by_hand(chain, token)


@settings(max_examples=300, derandomize=True)
@given(CHAINS, st.integers(0, 4), st.binary(max_size=100))
def test_a_digest_goes_on_from_a_shorter_one(chain: str, links: int, token: bytes) -> None:
    parts = chain.split(">")
    start = ">".join(parts[: 1 + min(links, len(parts) - 1)])
    assert RING.continued(chain, start, by_hand(start, token)) == by_hand(chain, token)
    assert begins_with(chain, start)


def test_the_chain_of_tokens_yet_to_come() -> None:
    assert RING.bases == ("k3", "sha256>k3", "acme>k3")
    assert [RING.wrapped(chain) for chain in ("k1", "k1>k2", "k3", "sha256>k1")] == [
        "k1>k3", "k1>k2>k3", "k3", "sha256>k1>k3",
    ]  # fmt: skip
    assert RING.missing(["k1>k9", "sha256>k2", "k8"]) == ["k8", "k9"]
    assert not begins_with("k10>k2", "k1")


def test_a_chain_that_is_too_long_is_refused_before_anything_is_changed() -> None:
    long = ">".join(["k1"] * 1_365)
    assert len(long) == 4_094
    with pytest.raises(FinalError, match="longer than 4096 characters"):
        RING.wrapped(long)


@pytest.mark.parametrize("name", ["sha256", "a>b", "", "x" * 32, "k,1", "k 1"])
def test_a_key_that_no_chain_can_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        DigestRing([Key(name, b"x" * 32)])


def test_an_issuers_key_may_not_shadow_a_pepper() -> None:
    with pytest.raises(ConfigurationError, match="a key id of PATROL_PEPPERS"):
        DigestRing([K1], [Key("k1", b"y" * 32)])


def test_without_a_key_nothing_is_never_issued(desk, new_secret: Callable[[], Secret]) -> None:
    """A digest that cannot be computed says nothing of any token."""
    desk.create()
    with desk.engine.begin() as connection:
        connection.execute(insert(digest_chains).values(key_id="k7>k1", created_at=1))
    for ask in (
        lambda: desk.store.find([new_secret()]),
        lambda: desk.store.authenticate(new_secret()),
        desk.create,
    ):
        with pytest.raises(StoreUnavailableError, match="lacks the keys k7"):
            ask()


def test_a_store_that_knows_only_newer_keys_does_not_guess(desk) -> None:
    secret, _ = desk.create()
    other = SqlTokenStore(desk.engine, Peppers([K2]))
    with pytest.raises(StoreUnavailableError, match="lacks the keys k1"):
        other.find([secret])


def test_a_chain_that_comes_while_a_store_is_used_is_tried(desk, new_secret) -> None:
    first, _ = desk.create()
    other = SqlTokenStore(desk.engine, Peppers([K1, K2]))
    assert [found.validity for found in other.find([first])] == [Validity.ACTIVE]
    desk.ring.keys = (K2, K1)
    second, _ = desk.create()
    assert [found.validity for found in other.find([first, second, new_secret()])] == [
        Validity.ACTIVE,
        Validity.ACTIVE,
        Validity.NEVER_ISSUED,
    ]


def test_a_token_that_was_recorded_twice_is_always_the_same(desk, new_secret) -> None:
    """It was issued here, and imported again by its plain digest, which nobody can tell."""
    secret, made = desk.create()
    desk.ring.keys = (K2, K1)
    desk.create(secret)  # as by a process that did not know
    for _ in range(3):
        (found,) = desk.store.find([secret])
        assert found.token.token_id == made["id"]
    desk.tokens.revoke(made["id"], actor="test")
    assert desk.validity(secret) is Validity.REVOKED
