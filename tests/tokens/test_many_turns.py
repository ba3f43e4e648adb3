"""The pepper is turned for years: every digest is found, and none outgrows its row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.db import chains
from scanner.db.engine import reader
from scanner.db.keyusage import key_usage
from scanner.db.schema import digest_chains, tokens, unknown_digests
from scanner.keyring import Key
from scanner.model import Secret, Validity
from scanner.stores.digests import DigestRing, keys_of
from scanner.stores.sql import SqlTokenStore
from scanner.stores.wrapping import wrap_digests

_IDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-._", min_size=1, max_size=31)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(_IDS.filter("sha256".__ne__), min_size=51, max_size=60, unique=True), st.data())
def test_fifty_turns_fit_whatever_keys_are_called(ids: list[str], data: st.DataObject) -> None:
    """A digest that is wrapped again and again is what its chain says; a name is short, and is no
    other chain's."""
    keys = [Key(name, name.encode() * 40) for name in ids]
    secret = Secret(b"a token")
    start = data.draw(st.sampled_from(["", "sha256"]))
    chain = f"{start}>{ids[0]}" if start else ids[0]
    digest = DigestRing(keys[:1]).digest(chain, secret)
    names = [chains.name_of(chain)]
    for turned in range(2, len(keys) + 1):
        ring = DigestRing(keys[:turned][::-1])
        longer = ring.wrapped(chain)
        assert keys_of(longer) == ids[:turned]
        digest = ring.continued(longer, chain, digest)
        chain = longer
        assert digest == ring.digest(chain, secret)
        names.append(chains.name_of(chain))
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= tokens.c.key_id.type.length == 64


def test_tokens_of_fifty_years_are_found(
    desk: Any, tmp_path: Path, new_secret: Callable[[], Secret]
) -> None:
    """With keys named by their days, as `patrol keys rotate` does: issued, imported, and seen while
    nobody knew them."""
    first = date(2026, 1, 1)
    keys = [
        *desk.ring.keys,
        *(
            Key(f"{first + timedelta(days=365 * year):%Y-%m-%d}", f"pepper {year}".encode() * 8)
            for year in range(52)
        ),
    ]
    issued = [desk.create()[0]]
    imported, leaked = new_secret(), new_secret()
    file = tmp_path / "tokens.csv"
    digest = hashlib.sha256(imported.reveal()).hexdigest()
    file.write_text(f"digest,name,organisation\n{digest},old,Acme\n")
    outcome = desk.importer.run(file, default_pattern=desk.pattern, actor="ops")
    assert (outcome.imported, outcome.rejected) == (1, 0)
    desk.leak(leaked)
    standing = SqlTokenStore(desk.engine, desk.peppers)  # a process that is never restarted
    for turned in range(2, len(keys) + 1):
        desk.ring.keys = tuple(keys[:turned][::-1])
        if turned % 10 == 0:
            issued.append(desk.create()[0])
        done = wrap_digests(desk.engine, desk.peppers, actor="ops")
        assert done.free == []
        (found,) = standing.find([issued[0]])
        assert found.validity is Validity.ACTIVE
    for store in (standing, SqlTokenStore(desk.engine, desk.peppers)):
        answers = store.find([*issued, imported, leaked])
        assert [found.validity for found in answers] == [
            *[Validity.ACTIVE] * (len(issued) + 1), Validity.NEVER_ISSUED,
        ]  # fmt: skip
    with reader(desk.engine).connect() as connection:
        used = key_usage(connection)["pepper"]
    # Two tokens and what was seen need the first key, all of them the last.
    seen = len(desk.rows(unknown_digests))
    assert (used[keys[0].id], used[keys[-1].id]) == (2 + seen, len(issued) + 1 + seen)
    assert max(len(row["key_id"]) for row in desk.rows(digest_chains)) <= 64
    desk.create(leaked)  # its leak is met after all these years
    assert len(desk.incidents()) == 1


def test_a_chain_that_rows_name_by_itself_stays_readable(desk: Any) -> None:
    """As they were written before there were other names."""
    with desk.engine.begin() as connection:
        connection.execute(digest_chains.insert().values(key_id="k1", created_at=1))
        assert chains.all_chains(connection) == {"k1"}
    secret, _ = desk.create()
    assert desk.validity(secret) is Validity.ACTIVE
