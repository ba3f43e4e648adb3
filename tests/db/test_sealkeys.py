"""Seal keys by day, and which keys are still needed."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine, select

from scanner.db import sealed
from scanner.db.engine import reader
from scanner.db.keycheck import check_keys
from scanner.db.keyusage import key_usage
from scanner.db.schema import audit_events, key_checks
from scanner.db.sealed import Cause, Waiting
from scanner.db.sealkeys import PURPOSE, turn_seal_keys
from scanner.db.seals import Sealer, key_of
from scanner.errors import ConfigurationError, FinalError
from scanner.keyring import Key, Ring, fernet_key
from scanner.model import LocatedCandidate

TODAY = datetime.now(UTC).date()
KEEP_DAYS = 14.0


@pytest.fixture
def ring(tmp_path: Path) -> Callable[..., Ring]:
    return lambda folder="keys": Ring(
        "PATROL_SEAL_KEYS", None, tmp_path / folder / "seal_keys", fernet_key
    )


def actions(engine: Engine) -> list[str]:
    with reader(engine).connect() as connection:
        return list(
            connection.execute(select(audit_events.c.action).order_by(audit_events.c.at)).scalars()
        )


def day(ago: int) -> str:
    return (TODAY - timedelta(days=ago)).isoformat()


def test_each_day_has_its_key(engine: Engine, ring: Callable[..., Ring]) -> None:
    keys = ring()
    before = Sealer(keys).seal("row", {"a": "b"})
    turn_seal_keys(engine, keys, KEEP_DAYS)
    turn_seal_keys(engine, keys, KEEP_DAYS)
    assert [key.id for key in ring()] == [day(0), "k1"]
    sealer = Sealer(ring())
    after = sealer.seal("row", {"a": "c"})
    assert (key_of(before), key_of(after)) == ("k1", day(0))
    assert sealer.open("row", before) == {"a": "b"}
    assert actions(engine) == ["key.made"]


def test_a_day_that_nothing_may_wait_under_any_more_is_destroyed(
    engine: Engine, ring: Callable[..., Ring]
) -> None:
    keys = ring()
    sealer = Sealer(keys)
    values = {}
    for ago in (40, 30, 16, 15, 14, 1):
        keys.add(day(ago))
        values[ago] = sealer.seal("row", {"days": str(ago)})
    turn_seal_keys(engine, keys, KEEP_DAYS)
    # The key of the 16th day was in force until the 15th, under which values may wait to this day.
    assert [key.id for key in keys] == [day(ago) for ago in (0, 1, 14, 15, 16)]
    assert actions(engine).count("key.destroyed") == 3
    assert sealer.open("row", values[16]) == {"days": "16"}
    for ago in (40, 30):
        with pytest.raises(FinalError, match="key is gone"):
            sealer.open("row", values[ago])
    with reader(engine).connect() as connection:
        recorded = set(connection.execute(select(key_checks.c.key_id)).scalars())
    assert recorded == {key.id for key in keys}


def test_two_data_directories_on_one_database_are_noticed(
    engine: Engine, ring: Callable[..., Ring]
) -> None:
    turn_seal_keys(engine, ring("one"), KEEP_DAYS)
    with pytest.raises(ConfigurationError, match="is not the one this database was made with"):
        turn_seal_keys(engine, ring("two"), KEEP_DAYS)


def test_a_ring_from_a_setting_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    given = Ring("PATROL_SEAL_KEYS", f"k1:{fernet_key()}", tmp_path / "none", fernet_key)
    turn_seal_keys(engine, given, KEEP_DAYS)
    assert [key.id for key in given] == ["k1"]
    assert actions(engine) == []


def test_the_ring_is_checked_at_the_start(engine: Engine, ring: Callable[..., Ring]) -> None:
    with engine.begin() as connection:
        check_keys(connection, PURPOSE, ring("one"))
    with engine.begin() as connection, pytest.raises(ConfigurationError, match="k1"):
        check_keys(connection, PURPOSE, ring("two"))


def test_what_waits_needs_its_keys(
    engine: Engine, seen_at: Callable[..., LocatedCandidate], add_scan: Callable[..., Any]
) -> None:
    found = seen_at()
    with engine.begin() as connection:
        scan = add_scan(connection)
        sealed.hold(
            connection, scan["id"], [Waiting(found.candidate.secret, (found,))], store="built-in",
            cause=Cause.STORE_UNAVAILABLE, sealer=Sealer([Key("s7", Fernet.generate_key())]),
            key=Key("f7", secrets.token_bytes(32)), keep_ms=-1,
        )  # fmt: skip
    with reader(engine).connect() as connection:
        usage = key_usage(connection)
    assert (usage["seal"]["s7"], usage["fingerprint"]["f7"], usage["pepper"]) == (1, 1, {})
    with engine.begin() as connection:
        assert len(sealed.expired(connection, 10)) == 1
    with reader(engine).connect() as connection:
        assert key_usage(connection)["seal"]["s7"] == 0
